"""Bytes to columns: the only code that sees a record. A line that fails is rejected alone and counted by reason."""
