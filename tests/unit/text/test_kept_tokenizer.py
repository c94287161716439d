from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest

from llamakit.text import kept_tokenizer
from llamakit.text.byte_bpe import ByteBpeTokenizer
from llamakit.text.kept_tokenizer import keep_as, load_kept
from llamakit.text.tokenizer import Tokenizer, load_tokenizer

TEXT = "The llama walked to the market. Straße, déjà vu, 你好 🙂 12345\n\n  <|eot_id|>"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLAMA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(kept_tokenizer, "_WORTH_KEEPING", 0)
    return tmp_path / "home"


@pytest.fixture
def model(tmp_path: Path, small_model_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(small_model_path, folder / "tokenizer.model")
    return folder


def kept(home: Path) -> list[Path]:
    return sorted((home / "tokenizers").glob("*")) if (home / "tokenizers").exists() else []


def assert_alike(found: Tokenizer, wanted: Tokenizer) -> None:
    assert found.encode(TEXT) == wanted.encode(TEXT)
    assert isinstance(found, ByteBpeTokenizer) and isinstance(wanted, ByteBpeTokenizer)
    assert found.merges() == wanted.merges() and dict(found.special) == dict(wanted.special)
    for name in ("kind", "vocab_size", "bos_id", "eos_ids", "pad_id", "split", "ignore_merges"):
        assert getattr(found, name) == getattr(wanted, name), name
    ids = range(-1, wanted.vocab_size + 1)
    assert [found.token_bytes(id) for id in ids] == [wanted.token_bytes(id) for id in ids]
    assert [found.is_special(id) for id in ids] == [wanted.is_special(id) for id in ids]


def test_the_second_start_builds_nothing(home: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_kept(model)
    monkeypatch.setattr(kept_tokenizer, "load_tokenizer", None)
    assert_alike(load_kept(model), first)
    assert_alike(load_kept(model / "tokenizer.model"), first)
    assert_alike(first, load_tokenizer(model))


def test_a_tokenizer_of_any_origin_is_kept_under_its_digest(home: Path, model: Path) -> None:
    first = keep_as("ab" * 32, lambda: load_tokenizer(model))
    assert_alike(keep_as("ab" * 32, lambda: pytest.fail("built again")), first)
    assert kept(home) == [home / "tokenizers" / f"{'ab' * 16}.bpe"]


def test_another_content_has_another_table(home: Path, model: Path) -> None:
    load_kept(model)
    lines = (model / "tokenizer.model").read_bytes().splitlines(keepends=True)
    (model / "tokenizer.model").write_bytes(b"".join(lines[:-1]))
    assert load_kept(model).vocab_size == load_tokenizer(model).vocab_size and len(kept(home)) == 2


def test_the_config_beside_it_counts_too(home: Path, model: Path) -> None:
    load_kept(model)
    (model / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|eot_id|>"}))
    load_kept(model)
    assert len(kept(home)) == 2


@pytest.mark.parametrize("place", [0, 17, 40, -1])
def test_a_damaged_table_is_built_again(home: Path, model: Path, place: int, caplog: pytest.LogCaptureFixture) -> None:
    wanted = load_kept(model)
    (file,) = kept(home)
    good = file.read_bytes()
    bad = bytearray(good)
    bad[place] ^= 1
    file.write_bytes(bad)
    with caplog.at_level(logging.WARNING):
        assert_alike(load_kept(model), wanted)
    assert "damaged" in caplog.text and file.read_bytes() == good


@pytest.mark.parametrize("size", [0, 10, 24, 1000])
def test_a_shortened_table_is_built_again(home: Path, model: Path, size: int) -> None:
    wanted = load_kept(model)
    (file,) = kept(home)
    file.write_bytes(file.read_bytes()[:size])
    assert_alike(load_kept(model), wanted)


def test_without_a_place_to_keep_it_it_still_loads(home: Path, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    home.mkdir()
    (home / "tokenizers").write_text("no directory")
    with caplog.at_level(logging.WARNING):
        assert_alike(load_kept(model), load_tokenizer(model))
    assert "not kept" in caplog.text


def test_small_tables_and_other_kinds_are_not_kept(
    tmp_path: Path, model: Path, spm_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_HOME", str(tmp_path / "home"))
    load_kept(model)
    assert load_kept(spm_model_path).kind == "sentencepiece" and kept(tmp_path / "home") == []
