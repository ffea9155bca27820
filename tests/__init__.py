"""Tests: mirror the package, and run the real parts."""
