"""Vector stores in this process, one module each."""
