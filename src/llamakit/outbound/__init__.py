"""The one way out: HTTP to other hosts, denied unless allowed, to the address that was checked."""
