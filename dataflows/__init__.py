"""Nothing but wiring: inputs, the Bytewax flow, state on disk, configuration, servers, the program."""
