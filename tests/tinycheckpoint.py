"""A checkpoint of a tiny random Llama with a byte tokenizer in the Llama 3 format, on disk."""

from __future__ import annotations

from pathlib import Path

from tests.tiny import tiny_llama

from llamakit.checkpoints.reader import Generation
from llamakit.checkpoints.save import save_hf
from llamakit.text.tiktoken_file import write_ranks


def write_tiny_checkpoint(directory: Path, *, context: int = 4096, seed: int = 0) -> Path:
    """The directory, ready to be served; 256 bytes and 256 special tokens, the usual ends of an answer."""
    vocab = 512
    model = tiny_llama(seed, vocab_size=vocab, context_length=context)
    save_hf(model, model.config, directory, generation=Generation(eos_ids=(257, 264, 265)))
    write_ranks(directory / "tokenizer.model", [bytes([byte]) for byte in range(256)])
    return directory
