"""Inference on other machines."""
