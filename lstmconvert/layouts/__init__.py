"""How frameworks arrange the four gates: a table of rows, and the functions that apply one."""
