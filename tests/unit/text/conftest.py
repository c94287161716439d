"""Tokenizers shared by the tests of this room: Meta's real one, and a small one trained on the spot."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from llamakit.text.tokenizer import Tokenizer, load_tokenizer
from llamakit.text.train_bpe import train_tiktoken

SAMPLE = (
    "The llama walked to the market on Monday and bought 12 apples, 3 pears and a book for $4.50.\n\n"
    "Could you call Anna at 17:30? She doesn't know yet; we'll tell her. unsafe safe S1,S2\n"
    "def total(values):\n    return sum(v for v in values if v > 0)\n"
    "Straße, déjà vu, mañana, नमस्ते, สวัสดี, 你好，世界 🙂\n"
    '[get_weather(city="Bern", days=3)] {"type": "function", "name": "get_weather", "parameters": {}}\n'
    "system user assistant ipython\n"
)


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
