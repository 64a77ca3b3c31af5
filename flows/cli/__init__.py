"""The command line: a file a command, or a few that belong together."""
