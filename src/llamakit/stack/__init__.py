"""The composition root: run config to providers to one door per API."""
