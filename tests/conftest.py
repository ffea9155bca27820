"""Settings that hold for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No deadline: machines are shared, and a slow example is no defect.
settings.register_profile("default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")
