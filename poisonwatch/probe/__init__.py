"""Asking the models themselves: clients of inference servers. Only what the configuration names is ever called."""
