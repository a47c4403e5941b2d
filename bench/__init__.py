"""The harness: a simulated telco, the detection scoreboard, and what is measured."""
