"""Tests of the trigger miner."""
