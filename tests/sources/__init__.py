"""Sources: real files, really rotated."""
