"""Tests of the dashboards: the files, their expressions on a real Prometheus, and how they look."""
