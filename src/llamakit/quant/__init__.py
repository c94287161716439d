"""Quantized layers put into any module from outside; the module does not know."""
