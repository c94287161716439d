"""Tokenizers shared by the tests of this room: Meta's real one, and a small one trained on the spot."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.unit.text.samples import SAMPLE, train_spm, write_spm

from llamakit.text.spm import BYTE, CONTROL, NORMAL, UNKNOWN, SpmPiece
from llamakit.text.tokenizer import Tokenizer, load_tokenizer
from llamakit.text.train_bpe import train_tiktoken


@pytest.fixture(scope="session")
def llama3_model_path() -> Path:
    """Meta's `tokenizer.model`, found without importing the package (it would pull its own imports)."""
    spec = importlib.util.find_spec("llama_models")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the llama-models package is not installed")
    return Path(spec.submodule_search_locations[0]) / "llama3" / "tokenizer.model"


@pytest.fixture(scope="session")
def llama3(llama3_model_path: Path) -> Tokenizer:
    """The real Llama 3 tokenizer."""
    return load_tokenizer(llama3_model_path)


@pytest.fixture(scope="session")
def small_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiktoken file of 700 entries in all."""
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.model"
    train_tiktoken([SAMPLE] * 3, 700, path)
    return path


@pytest.fixture(scope="session")
def small(small_model_path: Path) -> Tokenizer:
    """A byte-level tokenizer with Llama 3's control tokens."""
    return load_tokenizer(small_model_path)


@pytest.fixture(scope="session")
def shown() -> Callable[[Tokenizer, Sequence[int]], str]:
    """Ids as text, with control tokens spelled out."""

    def show(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
        names = {id: name for name, id in reversed(list(tokenizer.special.items()))}
        text = b"".join(names[id].encode() if id in names else tokenizer.token_bytes(id) for id in ids)
        return text.decode()

    return show


@pytest.fixture(scope="session")
def spm_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama 2 tokenizer file."""
    return train_spm(tmp_path_factory.mktemp("spm") / "tokenizer.model")


@pytest.fixture(scope="session")
def spm(spm_model_path: Path) -> Tokenizer:
    """A small SentencePiece tokenizer."""
    return load_tokenizer(spm_model_path)


CODE_LLAMA_PIECES = (
    "\u2581<SU", "\u2581<SUF", "\u2581<PRE", "\u2581<M", "\u2581<MID", "\u2581<E", "\u2581<EOT",
    "\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>", "\u2581<EOT>", "\u2581<EOT><EOT>", "<step>",
)  # fmt: skip


@pytest.fixture(scope="session")
def code_llama(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Bytes, a few pieces, and the pieces Code Llama added, which merging could reach."""
    letters = [chr(code) for code in range(33, 127)] + ["\u2581", "\u263a"]
    merged = ["\u2581<", "SU", "SUF", "PR", "PRE", "EO", "EOT", "MI", "MID", "\u2581a", "ab"]
    pieces = [SpmPiece("<unk>", 0.0, UNKNOWN), SpmPiece("<s>", 0.0, CONTROL), SpmPiece("</s>", 0.0, CONTROL)]
    pieces += [SpmPiece(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    pieces += [SpmPiece(text, -1.0 - i, NORMAL) for i, text in enumerate([*merged, *CODE_LLAMA_PIECES, *letters])]
    return load_tokenizer(write_spm(tmp_path_factory.mktemp("code") / "tokenizer.model", pieces))
