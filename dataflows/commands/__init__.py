"""What the program does besides running a deployment: one file a command, and the words of the command line."""
