"""Tokenizers that were built once: their tables lie in the data directory and are mapped at every later start.

One file for each content of a tokenizer's files, under `tokenizers/`: `MAGIC`, the CRC-32 of all that follows, the
length of a JSON header, the header, and the table at a multiple of 8 bytes. Any may be deleted at any time, and one
that is damaged is written again. Only byte-level tables without tokens matched in text are kept; others build quickly.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final
from zlib import crc32

from llamakit.core.config import data_home
from llamakit.core.errors import TokenizerError
from llamakit.core.files import write_durably
from llamakit.text.byte_bpe import GPT2_SPLIT, LLAMA3_SPLIT, ByteBpeTokenizer
from llamakit.text.hf_tokenizer import CONFIG_FILE
from llamakit.text.merge_table import MergeTable
from llamakit.text.tokenizer import Tokenizer, find_tokenizer, load_tokenizer
from llamakit.text.tokenizer_files import read_limited

MAGIC: Final = b"llamakit bpe 1\n\0"
"""Whoever changes the layout, or what `load_tokenizer` makes of a file, gives it another number."""
_HEAD = struct.Struct("<II")
_WORTH_KEEPING = 1 << 20
"""Bytes of a table; smaller ones are built as quickly."""
_SPLITS: Final = {"llama3": LLAMA3_SPLIT, "gpt2": GPT2_SPLIT}

_log = logging.getLogger(__name__)


def load_kept(source: Path) -> Tokenizer:
    """What `load_tokenizer` gives for a file or directory, from the kept table where there is one.

    Raises what `load_tokenizer` raises.
    """
    path = find_tokenizer(source)
    return keep_as(_digest(path), lambda: load_tokenizer(path))


def keep_as(digest: str, make: Callable[[], Tokenizer]) -> Tokenizer:
    """The tokenizer kept under the SHA-256 of its content, else what `make` gives, which raises what it raises."""
    kept = data_home() / "tokenizers" / f"{digest[:32]}.bpe"
    try:
        return _open(kept)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError, TokenizerError) as fault:
        _log.warning("a tokenizer is built again: the table kept of it, %s, is damaged (%s)", kept, fault)
    made = make()
    if isinstance(made, ByteBpeTokenizer) and not made.whole and len(made.table.data) >= _WORTH_KEEPING:
        try:
            write_durably(kept, _written(made))
        except OSError as error:
            _log.warning("the table of a tokenizer is not kept for the next start: %s", error)
    return made


def _digest(path: Path) -> str:
    """The same content has the same digest, wherever it lies."""
    digest = hashlib.sha256(MAGIC + path.name.encode())
    config = path.parent / CONFIG_FILE
    for file in (path, config):
        data = read_limited(file) if file == path or file.is_file() else b""
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def _written(tokenizer: ByteBpeTokenizer) -> bytes:
    split = next(name for name, pattern in _SPLITS.items() if pattern == tokenizer.split)
    facts = {
        "specials": tokenizer.special,
        "split": split,
        "ignore_merges": tokenizer.ignore_merges,
        "roles": tokenizer.roles,
    }
    header = json.dumps(facts).encode()
    header += b" " * (-len(header) % 8)
    rest = len(header).to_bytes(8, "little") + header + tokenizer.table.data
    return MAGIC + _HEAD.pack(crc32(rest), 0) + rest


def _open(path: Path) -> ByteBpeTokenizer:
    with path.open("rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    start = len(MAGIC) + _HEAD.size
    if len(view) < start + 8 or view[: len(MAGIC)] != MAGIC:
        raise ValueError("it is not one of this version")
    rest = view[start:]
    if _HEAD.unpack_from(view, len(MAGIC)) != (crc32(rest), 0):
        raise ValueError("its checksum differs")
    length = int.from_bytes(rest[:8], "little")
    facts = json.loads(bytes(rest[8 : 8 + length]))
    bos, eos, pad = facts["roles"]
    return ByteBpeTokenizer.over(
        MergeTable(rest[8 + length :]),
        specials=facts["specials"],
        split=_SPLITS[facts["split"]],
        ignore_merges=facts["ignore_merges"],
        roles=(bos, eos, pad),
    )
