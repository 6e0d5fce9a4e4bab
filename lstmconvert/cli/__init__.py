"""The command line: one module a command, and `output`, through which everything is printed.

A command parses its options, calls the library and prints the answer: it knows no more. Start with
`main`; `options` holds what several commands take.
"""

#: The exit code after Ctrl-C: what shells report of a process that SIGINT ended.
INTERRUPTED = 130

#: The variable by which a shell asks click for completions at the cursor.
COMPLETE = "_LSTMCONVERT_COMPLETE"
