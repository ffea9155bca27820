"""Tests of the detectors: the bounds they promise, and that they see what they should."""
