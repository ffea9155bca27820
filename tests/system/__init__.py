"""Tests of the real agent beside the real programs that it works with."""
