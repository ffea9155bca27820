"""Indicators, what is counted over them, over which interval, and what it is compared with. Pure."""
