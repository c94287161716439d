"""A path and messages in, events out: where text meets the engine."""
