"""Tests of the parts of the configuration that have modules of their own."""
