"""Sinks: what is written and shown."""
