"""Retrieval: documents to text, text to chunks, chunks to vectors and words, a question to the best of them."""
