"""Where notifications go: the durable outbox, its dispatcher, and the outputs. Imports `schemas` alone."""
