"""Vector stores of other services, one module each."""
