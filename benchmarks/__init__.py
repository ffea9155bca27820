"""Benchmarks, and the scripts that make the data they and the demo use."""
