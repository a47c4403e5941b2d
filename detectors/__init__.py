"""The pure core: state and batch in, findings out. No clock, no input or output, no engine, no randomness."""
