"""From evidence to alerts, causes and one decision per model version. Pure functions; every one names its reason."""
