"""Nets that are put together in Python: symbols, the configuration that they say, and functions that compute it."""
