"""The command line: one module a command, one output sink."""

#: The exit code after Ctrl-C: what shells report of a process that SIGINT ended.
INTERRUPTED = 130
