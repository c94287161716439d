"""Limits and reading of tokenizer files, which may be hostile: sizes are checked before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from llamakit.core.errors import TokenizerError

MAX_FILE_BYTES: Final = 64 << 20
MAX_ENTRIES: Final = 1_000_000
MAX_TOKEN_BYTES: Final = 256
"""Llama 3's longest token has 128 bytes. Pairs are searched at every place of a token, hence a limit."""


def read_limited(path: Path) -> bytes:
    """All bytes of the file; TokenizerError where there are more than a tokenizer can have."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise TokenizerError(f"{path}: more than {MAX_FILE_BYTES} bytes, the most a tokenizer file may have")
    return data
