"""Providers that work inside this process."""
