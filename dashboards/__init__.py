"""Dashboards for Grafana: the files, and the code that makes them."""
