"""What to train, on what, for how long: one module per recipe."""
