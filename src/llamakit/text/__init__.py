"""Bytes to ids and back, messages to ids and back: tokenizers, prompt formats, parsers of answers."""
