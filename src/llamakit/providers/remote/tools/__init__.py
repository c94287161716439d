"""Providers of tools that others carry out."""
