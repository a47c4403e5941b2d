"""Where events come from: files, HTTP, HEP, Kafka. Each yields chunks of raw records with their places."""
