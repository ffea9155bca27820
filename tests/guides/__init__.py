"""The commands of every page, run as a reader would type them."""
