"""Routes, one file per API: bytes to wire type to the house's request, and back."""
