"""Checkpoints on disk: Hugging Face, Meta and GGUF files, read and written under one naming; no network, no engine."""
