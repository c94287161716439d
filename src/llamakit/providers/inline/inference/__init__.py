"""Providers of the inference API inside this process."""
