"""A generated phone micro-world: people, plans and messages, and the tasks one can ask about them."""
