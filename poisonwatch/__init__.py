"""Watches the prediction logs of deployed models for signs of poisoning."""

__version__ = "0.1.0"
