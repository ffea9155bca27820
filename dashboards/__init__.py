"""Dashboards for Grafana: the files, and the code that makes them."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # It would rather be asked for its newer schema, which only the newest Grafana provisions; all of them read this one.
    warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
    import grafana_foundation_sdk.builders.bargauge
    import grafana_foundation_sdk.builders.dashboard  # noqa: F401 - each warns once, here
