"""Tool calls as text: how each dialect writes them, and how a stream of text is read back into calls."""
