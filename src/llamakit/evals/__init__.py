"""How good a model is: measures over texts and tasks, of anything that completes or scores tokens."""
