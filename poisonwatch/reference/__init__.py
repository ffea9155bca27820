"""The reference: its file, how it is learned, and what is fitted with it."""
