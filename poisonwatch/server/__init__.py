"""HTTP: the metrics, health, decisions and a small status page, in a thread of its own."""
