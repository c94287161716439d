"""Providers of tools inside this process, or beside it."""
