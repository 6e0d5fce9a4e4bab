"""Live objects of other frameworks, each imported when it is asked for."""
