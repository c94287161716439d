"""Where chunks are kept and found: by vector, by word, within one collection."""
