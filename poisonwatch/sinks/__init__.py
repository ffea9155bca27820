"""Facts out: the journal first, then what people and machines read."""
