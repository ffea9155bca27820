"""Formats: bytes in, columns and counts out."""
