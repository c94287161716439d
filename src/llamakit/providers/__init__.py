"""Thin adapters from an API's Protocol to what does the work, found by name."""
