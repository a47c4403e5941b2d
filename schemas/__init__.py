"""What comes in and what goes out: events, columns, decoding, alerts, errors. Imports nothing of ours."""
