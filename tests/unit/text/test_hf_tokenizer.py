"""HF's tokenizer.json of both families, against the `tokenizers` library and the files they come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.text.samples import SAMPLE
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Pipeline

from llamakit.core.errors import TokenizerError, UnsupportedFormat
from llamakit.text.byte_bpe import LLAMA3_SPLIT, spell
from llamakit.text.gguf_tokenizer import fields_of, load_fields
from llamakit.text.hf_tokenizer import load_hf, read_chat_template
from llamakit.text.specials import LLAMA3_SPECIALS
from llamakit.text.spm import BYTE, CONTROL, NORMAL, SentencePieceTokenizer
from llamakit.text.tiktoken_file import merges_of, read_ranks
from llamakit.text.tokenizer import Tokenizer, load_tokenizer

# Names of the first control tokens in the releases that call them otherwise than Meta does (model_facts 3.1).
HF_NAMES_30 = [f"<|reserved_special_token_{n}|>" for n in range(251)]
HF_30 = [
    "<|begin_of_text|>", "<|end_of_text|>", *HF_NAMES_30[:4], "<|start_header_id|>", "<|end_header_id|>",
    HF_NAMES_30[4], "<|eot_id|>", *HF_NAMES_30[5:],
]  # fmt: skip


def llama3_json(path: Path, ranks: Path, names: list[str], extra: list[AddedToken] | None = None) -> Path:
    vocab = {spell(token): rank for rank, token in enumerate(read_ranks(ranks))}
    pipeline = Pipeline(models.BPE(vocab=vocab, merges=merges_of(vocab), ignore_merges=True))
    pipeline.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    pipeline.decoder = decoders.ByteLevel()
    pipeline.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    pipeline.add_tokens(extra or [])
    pipeline.save(str(path))
    return path


@pytest.fixture(scope="module")
def llama3_dir(tmp_path_factory: pytest.TempPathFactory, small_model_path: Path) -> Path:
    directory = tmp_path_factory.mktemp("hf")
    llama3_json(directory / "tokenizer.json", small_model_path, list(LLAMA3_SPECIALS))
    config = {"bos_token": "<|begin_of_text|>", "eos_token": {"content": "<|eot_id|>"}, "chat_template": "{{ 1 }}"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="module")
def llama3_hf(llama3_dir: Path) -> Tokenizer:
    return load_hf(llama3_dir / "tokenizer.json")


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=100))
def test_llama3_json_equals_the_tiktoken_file(llama3_hf: Tokenizer, small: Tokenizer, text: str) -> None:
    ids = llama3_hf.encode(text)
    assert ids == small.encode(text)
    assert llama3_hf.decode(ids) == text


def test_llama3_json_knows_its_roles(llama3_dir: Path, llama3_hf: Tokenizer, small: Tokenizer) -> None:
    ours = llama3_hf
    assert dict(ours.special) == dict(small.special)
    assert (ours.bos_id, ours.pad_id) == (small.bos_id, small.pad_id)
    assert ours.eos_ids[0] == small.special["<|eot_id|>"]
    assert set(ours.eos_ids) == set(small.eos_ids)
    assert read_chat_template(llama3_dir) == "{{ 1 }}"


def test_a_template_of_its_own_file_comes_first(tmp_path: Path) -> None:
    assert read_chat_template(tmp_path) is None
    (tmp_path / "chat_template.jinja").write_text("{{ 2 }}")
    assert read_chat_template(tmp_path) == "{{ 2 }}"


def test_metas_names_are_found_by_id(tmp_path: Path, small_model_path: Path) -> None:
    """Llama 3.0 on the hub calls eom, python_tag and pad reserved tokens."""
    ours = load_hf(llama3_json(tmp_path / "tokenizer.json", small_model_path, HF_30))
    base = 444
    for place, name in enumerate(LLAMA3_SPECIALS[:12]):
        if name.startswith("<|reserved"):
            continue
        assert ours.special[name] == base + place
    assert ours.special["<|reserved_special_token_4|>"] == base + 8 == ours.special["<|eom_id|>"]
    assert ours.special["<|reserved_special_token_250|>"] == base + 255


def test_added_tokens_that_are_not_special_are_text(tmp_path: Path, small_model_path: Path) -> None:
    extra = [AddedToken("<think>", special=False, normalized=False)]
    ours = load_hf(llama3_json(tmp_path / "tokenizer.json", small_model_path, list(LLAMA3_SPECIALS), extra))
    think = 700
    assert ours.vocab_size == 701
    assert ours.encode("a<think>b") == [*ours.encode("a"), think, *ours.encode("b")]
    assert not ours.is_special(think)
    assert ours.decode(ours.encode("a <think> b")) == "a <think> b"


def test_spelled_control_tokens_are_text(llama3_hf: Tokenizer) -> None:
    text = "".join(LLAMA3_SPECIALS)
    ids = llama3_hf.encode(text)
    assert not any(map(llama3_hf.is_special, ids))
    assert llama3_hf.decode(ids) == text


def llama2_json(path: Path, spm: SentencePieceTokenizer, *, metaspace: bool) -> Path:
    """As transformers converts a SentencePiece file, in its older and its newer form."""
    vocab = {piece.text: id for id, piece in enumerate(spm.pieces)}
    normal = [p for id, p in enumerate(spm.pieces) if p.kind == NORMAL and id not in (0, 1, 2)]
    merges = [
        (piece.text[:i], piece.text[i:])
        for piece in sorted(normal, key=lambda piece: -piece.score)
        for i in range(1, len(piece.text))
        if {piece.text[:i], piece.text[i:]} <= {p.text for p in normal}
    ]
    bpe = models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    pipeline = Pipeline(bpe)
    if metaspace:
        pipeline.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        steps = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        pipeline.normalizer = normalizers.Sequence(steps)
    pipeline.add_special_tokens([AddedToken(name, normalized=False) for name in ("<unk>", "<s>", "</s>")])
    pipeline.save(str(path))
    return path


@pytest.mark.parametrize("metaspace", [False, True])
def test_llama2_json_equals_the_sentencepiece_file(
    tmp_path: Path, spm: SentencePieceTokenizer, metaspace: bool
) -> None:
    ours = load_hf(llama2_json(tmp_path / "tokenizer.json", spm, metaspace=metaspace))
    assert isinstance(ours, SentencePieceTokenizer)
    assert dict(ours.special) == dict(spm.special)
    assert (ours.bos_id, ours.eos_ids, ours.unk_id) == (1, (2,), 0)
    assert [ours.pieces[id].kind for id in (1, 3)] == [CONTROL, BYTE]
    for text in ("the llama walked", " two  spaces ", "\n\tx", "नमस्ते 🙂", "</s><s><unk>", "<0x41>", ""):
        assert ours.encode(text) == spm.encode(text)
        assert ours.decode(ours.encode(text)) == text


def test_merge_order_becomes_scores(tmp_path: Path, spm: SentencePieceTokenizer) -> None:
    """A file with merges alone must still make a GGUF vocabulary, which has scores alone."""
    ours = load_hf(llama2_json(tmp_path / "tokenizer.json", spm, metaspace=False))
    assert isinstance(ours, SentencePieceTokenizer)
    by_scores = load_fields(fields_of(ours))
    for text in (SAMPLE, " two  spaces ", "नमस्ते 🙂"):
        assert by_scores.encode(text) == spm.encode(text)


def _edited(directory: Path, path: Path, edit: Any) -> Path:
    document = json.loads((directory / "tokenizer.json").read_text())
    edit(document)
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda d: d["model"].update(type="Unigram"), "type 'Unigram'"),
        (lambda d: d.pop("model"), "type None"),
        (lambda d: d["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex="(a+)+$"), "split pattern"),
        (lambda d: d["pre_tokenizer"]["pretokenizers"].append({"type": "Digits"}), "does not have"),
        (lambda d: d.update(pre_tokenizer=None), "a pipeline of"),
    ],
)
def test_unsupported_features_are_named(llama3_dir: Path, tmp_path: Path, edit: Any, fault: str) -> None:
    path = _edited(llama3_dir, tmp_path / "tokenizer.json", edit)
    with pytest.raises(UnsupportedFormat, match=fault) as caught:
        load_hf(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda d: d["model"].update(vocab=[]), "model.vocab"),
        (lambda d: d["model"]["vocab"].update(x=-1), "model.vocab"),
        (lambda d: d["model"]["vocab"].update(x=5), "share one id"),
        (lambda d: d["model"]["vocab"].pop("a"), "0x61 is missing"),
        (lambda d: d["model"]["merges"].append("a"), "a merge is two tokens"),
        (lambda d: d["model"]["merges"].append(["zz", "qq"]), "merge table is inconsistent"),
        (lambda d: d["model"]["vocab"].update({"a" * 600: 9999}), "more than 512"),
        (lambda d: d.update(added_tokens={}), None),
        (lambda d: d.update(added_tokens="x"), "added_tokens must be a list"),
        (lambda d: d["added_tokens"].append({"content": "x"}), "needs a content and an id"),
        (lambda d: d["added_tokens"].append({"content": "x", "id": 3, "special": True}), "id of another token"),
        (lambda d: d["pre_tokenizer"].update(pretokenizers=[3]), "must be a list of objects"),
    ],
)
def test_bad_tables_are_named(llama3_dir: Path, tmp_path: Path, edit: Any, fault: str | None) -> None:
    path = _edited(llama3_dir, tmp_path / "tokenizer.json", edit)
    if fault is None:
        assert load_hf(path).special == {}
        return
    with pytest.raises(TokenizerError, match=fault) as caught:
        load_hf(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"a": 1e999}', "\xff"])
def test_what_is_no_json_object_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises((TokenizerError, UnsupportedFormat), match=r"tokenizer\.json"):
        load_hf(path)


def test_a_directory_prefers_the_file_with_added_tokens(llama3_dir: Path, spm_model_path: Path) -> None:
    (llama3_dir / "tokenizer.model").write_bytes(spm_model_path.read_bytes())
    assert load_tokenizer(llama3_dir).kind == "byte_bpe"
