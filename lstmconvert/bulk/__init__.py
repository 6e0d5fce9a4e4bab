"""Many files at once: a plan of sources and destinations, workers, and a report of the outcomes.

Knows paths, URLs and processes; a file is converted by the library's own calls, and nothing here
knows a format. Start with `run`: it makes a `plan`, gives tasks to `runners`, and each task is done
by `work` in a worker and becomes a line of a `report`.
"""
