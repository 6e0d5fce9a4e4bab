"""Files as named arrays: a container knows nothing about gates."""
