"""Tests of the machine of one model."""
