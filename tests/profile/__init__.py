"""Tests of the indicators, the windows and the baseline."""
