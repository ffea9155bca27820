"""Detectors: each measures one kind of departure and says it as evidence; none decides. Pure."""
