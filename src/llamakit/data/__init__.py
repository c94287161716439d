"""Training examples as conversations, ids and masks: lists and arrays, never tensors."""
