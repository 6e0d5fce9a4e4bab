"""How frameworks arrange the four gates: a table of rows, and the functions that apply one.

Knows frameworks by their rows only, and no files. Start with `row`, then `rows` (the table) and
`arrange` and `gather`, which read a row in the two directions.
"""
