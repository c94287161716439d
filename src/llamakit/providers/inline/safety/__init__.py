"""Shields that run in this process, over models that are served or over rules."""
