"""Any format to any other: same weights, same config, same tokenizer, same continuation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.tiny import tiny_llama
from tests.unit.checkpoints.builders import write_gguf, write_hf, write_meta
from tests.unit.text.samples import SAMPLE, train_spm

from llamakit.checkpoints.convert import convert
from llamakit.checkpoints.load import load_model
from llamakit.core.errors import CheckpointError, ConfigError
from llamakit.core.model_config import RopeScaling
from llamakit.models.llama import Llama
from llamakit.text.tokenizer import load_tokenizer
from llamakit.text.train_bpe import train_tiktoken

LLAMA3 = {"rope_theta": 500_000.0, "rope_scaling": RopeScaling(factor=8.0), "context_length": 131072}
LLAMA3 |= {"dim": 256, "head_dim": 64}


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bpe")
    train_tiktoken([SAMPLE] * 3, 700, directory / "tokenizer.model")
    return directory


@pytest.fixture(scope="module")
def spm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("spm")
    train_spm(directory / "tokenizer.model")
    return directory


def _write_without_scores(spm: Path, path: Path) -> None:
    """The vocabulary as some Llama 2 repositories have it: pieces and merges, and no scores."""
    tokenizer = load_tokenizer(spm)
    document = json.loads(tokenizer._bpe.to_str())
    document["model"]["vocab"] |= {"<s>": 1, "</s>": 2}
    document["added_tokens"] = [
        {"id": id, "content": text, "special": True} for id, text in enumerate(("<unk>", "<s>", "</s>"))
    ]
    steps = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    document["normalizer"] = {"type": "Sequence", "normalizers": steps}
    path.write_text(json.dumps(document))


@torch.no_grad()
def _greedy(model: Llama) -> list[int]:
    ids = torch.tensor([[1, 2, 3, 4]])
    for _ in range(32):
        ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], dim=1)
    return ids[0].tolist()


def _source(kind: str, path: Path, tokenizer: Path, vocab_size: int) -> Path:
    model = tiny_llama(tie_embeddings=False, vocab_size=vocab_size, **LLAMA3)
    if kind == "hf":
        return write_hf(path, model, tokenizer=tokenizer)
    write_meta(path, model, ranks=2, use_scaled_rope=True)
    (path / "tokenizer.model").write_bytes((tokenizer / "tokenizer.model").read_bytes())
    return path


@pytest.mark.parametrize("kind", ["hf", "meta"])
def test_there_and_back_by_way_of_gguf(kind: str, tmp_path: Path, bpe: Path) -> None:
    source = _source(kind, tmp_path / "source", bpe, 700)
    first = load_model(source)
    gguf = convert(source, tmp_path / "x.gguf").path
    back = convert(gguf, tmp_path / "back").path
    texts = [SAMPLE, "  two  spaces", "<|eot_id|> is plain text", "1234567"]
    wanted = [load_tokenizer(source).encode(text) for text in texts]
    for path in (gguf, back):
        loaded = load_model(path)
        assert loaded.config == first.config
        assert _greedy(loaded.model) == _greedy(first.model)
        tokenizer = load_tokenizer(loaded.tokenizer_source)
        assert [tokenizer.encode(text) for text in texts] == wanted
        assert tokenizer.special["<|eot_id|>"] == load_tokenizer(source).special["<|eot_id|>"]
        assert tokenizer.bos_id == load_tokenizer(source).bos_id


@pytest.mark.parametrize("files", ["tokenizer.model", "tokenizer.json"])
def test_a_sentencepiece_vocabulary_goes_along(files: str, tmp_path: Path, spm: Path) -> None:
    directory = spm
    if files == "tokenizer.json":
        directory = tmp_path / "fast"
        directory.mkdir()
        _write_without_scores(spm, directory / "tokenizer.json")
    source = _source("hf", tmp_path / "source", directory, 560)
    gguf = convert(source, tmp_path / "x.gguf").path
    back = convert(gguf, tmp_path / "back").path
    texts = ["The llama walked to the market", " unsafe safe", "déjà vu 🙂", "a  b"]
    wanted = [load_tokenizer(spm / "tokenizer.model").encode(text) for text in texts]
    for path in (gguf, back):
        tokenizer = load_tokenizer(load_model(path).tokenizer_source)
        assert [tokenizer.encode(text) for text in texts] == wanted


def test_sentencepiece_itself_reads_the_exported_model(tmp_path: Path, spm: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    gguf = convert(_source("hf", tmp_path / "source", spm, 560), tmp_path / "x.gguf").path
    back = convert(gguf, tmp_path / "back").path
    theirs, ours = (
        sentencepiece.SentencePieceProcessor(model_file=str(path / "tokenizer.model")) for path in (spm, back)
    )
    assert ours.encode(SAMPLE) == theirs.encode(SAMPLE)
    assert (ours.bos_id(), ours.eos_id(), ours.unk_id(), ours.pad_id()) == (1, 2, 0, theirs.pad_id())


def test_transformers_reads_the_exported_byte_bpe(tmp_path: Path, bpe: Path) -> None:
    transformers = pytest.importorskip("transformers")
    gguf = convert(_source("hf", tmp_path / "source", bpe, 700), tmp_path / "x.gguf").path
    back = convert(gguf, tmp_path / "back").path
    theirs = transformers.AutoTokenizer.from_pretrained(back)
    tokenizer = load_tokenizer(bpe)
    assert theirs.encode(SAMPLE, add_special_tokens=False) == tokenizer.encode(SAMPLE)
    assert theirs.encode("<|eot_id|>", add_special_tokens=False) == [tokenizer.special["<|eot_id|>"]]
    assert theirs.encode("x")[0] == tokenizer.bos_id


def test_the_template_goes_along(tmp_path: Path, bpe: Path) -> None:
    source = _source("hf", tmp_path / "source", bpe, 700)
    (source / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    first = convert(source, tmp_path / "x.gguf")
    assert load_model(first.path).metadata.chat_template == "{{ messages }}"
    assert first.notes == ()
    back = convert(first.path, tmp_path / "back").path
    assert (back / "chat_template.jinja").read_text() == "{{ messages }}"


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    source = write_hf(tmp_path / "source", tiny_llama())
    assert "has no tokenizer" in convert(source, tmp_path / "x.gguf").notes[0]


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, bpe: Path) -> None:
    source = write_hf(tmp_path / "source", tiny_llama(vocab_size=650), tokenizer=bpe)
    with pytest.raises(CheckpointError, match="has 700 tokens, the model embeds 650"):
        convert(source, tmp_path / "x.gguf")


def test_rows_beyond_the_tokenizer_become_unused_entries(tmp_path: Path, bpe: Path) -> None:
    source = write_hf(tmp_path / "source", tiny_llama(vocab_size=768), tokenizer=bpe)
    loaded = load_model(convert(source, tmp_path / "x.gguf").path)
    assert len(loaded.tokenizer_source.tokens) == 768
    assert load_tokenizer(loaded.tokenizer_source).encode(SAMPLE) == load_tokenizer(bpe).encode(SAMPLE)


def test_precision_is_chosen_per_target(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "x.gguf", tiny_llama(), quantization="q8_0")
    assert load_model(convert(source, tmp_path / "a").path).model.dtype == torch.bfloat16
    assert load_model(convert(source, tmp_path / "b", dtype=torch.float32).path).model.dtype == torch.float32
    small = convert(source, tmp_path / "c.gguf", quantization="q4_0").path
    assert load_model(small).metadata.quantization == "Q4_0"
    with pytest.raises(ConfigError, match="chosen by quantization"):
        convert(source, tmp_path / "d.gguf", dtype=torch.float32)
    with pytest.raises(ConfigError, match=r"name the target \*\.gguf, or choose int4 or int8"):
        convert(source, tmp_path / "d", quantization="q8_0")


def test_an_existing_target_stays_unless_forced(tmp_path: Path) -> None:
    source = write_hf(tmp_path / "source", tiny_llama())
    target = tmp_path / "x.gguf"
    target.write_text("precious")
    with pytest.raises(ConfigError, match="exists"):
        convert(source, target)
    assert target.read_text() == "precious"
    convert(source, target, force=True)
    assert load_model(target).kind == "gguf"


def test_a_checkpoint_may_replace_itself(tmp_path: Path) -> None:
    source = write_hf(tmp_path / "m", tiny_llama())
    convert(source, source, dtype=torch.bfloat16, force=True)
    assert load_model(source).model.dtype == torch.bfloat16
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_bad_source_leaves_no_trace(tmp_path: Path) -> None:
    source = write_hf(tmp_path / "source", tiny_llama())
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    for target in ("x.gguf", "y"):
        with pytest.raises(CheckpointError, match="truncated or damaged"):
            convert(source, tmp_path / target)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    source = write_hf(tmp_path / "source", tiny_llama())
    for target in ("x.gguf", "y"):
        seen: list[tuple[int, int]] = []
        convert(source, tmp_path / target, progress=lambda done, total: seen.append((done, total)))
        assert seen[-1][0] == seen[-1][1]
