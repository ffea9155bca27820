"""Tests of what tells people of alerts, against real receivers."""
