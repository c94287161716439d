"""A small random model as a Hugging Face directory, for tests that go through files."""

from __future__ import annotations

from pathlib import Path

from tests.tiny import tiny_llama

from llamakit.checkpoints.reader import Generation
from llamakit.checkpoints.save import save_hf
from llamakit.text.specials import llama3_specials
from llamakit.text.tiktoken_file import write_ranks

BASE_SIZE = 256
CONTEXT = 2048


def write_tiny_model(directory: Path, seed: int = 0) -> Path:
    """Two layers and one token a byte, with Llama 3's control tokens; ready to be loaded by path."""
    tokenizer = directory.with_name(f"{directory.name}-tokenizer")
    tokenizer.mkdir(parents=True)
    write_ranks(tokenizer / "tokenizer.model", [bytes([byte]) for byte in range(BASE_SIZE)])
    specials = llama3_specials(BASE_SIZE)
    ends = tuple(specials[name] for name in ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"))
    model = tiny_llama(seed, vocab_size=BASE_SIZE + len(specials), context_length=CONTEXT)
    return save_hf(model, model.config, directory, tokenizer=tokenizer, generation=Generation(eos_ids=ends))
