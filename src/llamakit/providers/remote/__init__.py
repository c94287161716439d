"""Adapters to services on other machines."""
