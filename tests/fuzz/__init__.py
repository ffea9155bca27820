"""Formats under bytes and values that nobody means well."""
