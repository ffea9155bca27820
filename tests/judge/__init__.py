"""Tests of the way from evidence to alerts and decisions."""
