"""HF's `tokenizer.json`, for both families, with what `tokenizer_config.json` beside it adds.

Only the tables are taken from the file: vocabulary, merges, added tokens. How text is split and decoded is
recognised and done by this project's own tokenizers; a pipeline that is not one of Llama's is refused, and
no pattern of the file is ever run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llamakit.core.errors import TokenizerError, UnsupportedFormat
from llamakit.text.byte_bpe import GPT2_SPLIT, LLAMA3_SPLIT, ByteBpeTokenizer
from llamakit.text.specials import SPM_BEGIN, SPM_END, SPM_UNKNOWN
from llamakit.text.spm import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, SentencePieceTokenizer, SpmPiece
from llamakit.text.tokenizer_files import MAX_ENTRIES, MAX_TOKEN_BYTES, read_limited

TOKENIZER_FILE: Final = "tokenizer.json"
CONFIG_FILE: Final = "tokenizer_config.json"
TEMPLATE_FILE: Final = "chat_template.jinja"


def looks_like_hf(head: bytes) -> bool:
    """Whether a file that starts with `head` can be a JSON object."""
    return head.lstrip()[:1] == b"{"


def load_hf(path: Path) -> ByteBpeTokenizer | SentencePieceTokenizer:
    """The tokenizer of a `tokenizer.json`; the roles of its tokens come from the config beside it."""
    try:
        return _build(_read_json(path), _roles(path.parent))
    except UnsupportedFormat as fault:
        raise UnsupportedFormat(f"{path}: {fault}") from None
    except TokenizerError as fault:
        raise TokenizerError(f"{path}: {fault}") from None


def read_chat_template(directory: Path) -> str | None:
    """Source of the chat template a checkpoint directory carries, to recognise its format by; never executed."""
    alone = directory / TEMPLATE_FILE
    if alone.is_file():
        return read_limited(alone).decode("utf-8", "replace")
    template = _config(directory).get("chat_template")
    return template if isinstance(template, str) else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_limited(path))
    except (ValueError, RecursionError) as fault:
        raise TokenizerError(f"not JSON: {fault}") from None
    if not isinstance(value, dict):
        raise TokenizerError("not a JSON object")
    return value


def _config(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG_FILE
    try:
        return _read_json(path) if path.is_file() else {}
    except TokenizerError as fault:
        raise TokenizerError(f"{path}: {fault}") from None


def _roles(directory: Path) -> dict[str, str]:
    """`bos_token`, `eos_token`, ... to the token's text; each is a string or an object with `content`."""
    roles: dict[str, str] = {}
    for role, token in _config(directory).items():
        text = token.get("content") if isinstance(token, dict) else token
        if role.endswith("_token") and isinstance(text, str):
            roles[role] = text
    return roles


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tables:
    """The tables of the file, checked."""

    vocab: dict[str, int]
    merges: list[tuple[str, str]]
    special: dict[str, int]
    whole: dict[str, int]
    """Added tokens that are matched in text and shown in it."""


def _build(document: dict[str, Any], roles: Mapping[str, str]) -> ByteBpeTokenizer | SentencePieceTokenizer:
    model = document.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else None
        raise UnsupportedFormat(f"a tokenizer of type {kind!r}; this build reads BPE, the type of Llama")
    tables = _tables(document, model)
    steps = [*_steps(document, "normalizer"), *_steps(document, "pre_tokenizer")]
    kinds = {step.get("type") for step in steps}
    if "ByteLevel" in kinds:
        return _byte_bpe(tables, model, steps, roles)
    if model.get("byte_fallback"):
        return _sentencepiece(tables, steps, roles)
    raise UnsupportedFormat(f"a pipeline of {sorted(map(str, kinds))}; this build reads those of Llama")


def _tables(document: dict[str, Any], model: dict[str, Any]) -> _Tables:
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not all(_is_id(id) for id in vocab.values()):
        raise TokenizerError(f"model.vocab must map tokens to ids from 0 to {MAX_ENTRIES - 1}")
    if len(set(vocab.values())) != len(vocab):
        raise TokenizerError("two tokens share one id")
    if any(len(token) > 2 * MAX_TOKEN_BYTES for token in vocab):
        raise TokenizerError(f"a token of more than {2 * MAX_TOKEN_BYTES} characters")
    special: dict[str, int] = {}
    whole: dict[str, int] = {}
    for token in _records(document.get("added_tokens"), "added_tokens"):
        text, id = token.get("content"), token.get("id")
        if not isinstance(text, str) or not text or not isinstance(id, int) or not _is_id(id):
            raise TokenizerError(f"an added token needs a content and an id, found {str(token)[:80]}")
        (special if token.get("special") else whole)[text] = id
    plain = {token: id for token, id in vocab.items() if token not in special}
    taken = set(plain.values())
    clash = next((text for text, id in {**special, **whole}.items() if id in taken and plain.get(text) != id), None)
    if clash is not None:
        raise TokenizerError(f"added token {clash[:40]!r} has the id of another token")
    merges = [_pair(merge) for merge in model.get("merges") or ()]
    return _Tables(vocab=plain, merges=merges, special=special, whole=whole)


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_ENTRIES


def _pair(merge: object) -> tuple[str, str]:
    """Older files write "a b", newer ones ["a", "b"]."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if isinstance(parts, list) and len(parts) == 2 and all(isinstance(part, str) for part in parts):
        return parts[0], parts[1]
    raise TokenizerError(f"a merge is two tokens, found {str(merge)[:80]}")


def _records(value: object, name: str) -> Sequence[dict[str, Any]]:
    records = value or []
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise TokenizerError(f"{name} must be a list of objects")
    return records


def _steps(document: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """The steps of a pipeline, a sequence of them unfolded."""
    step = document.get(name)
    if not isinstance(step, dict):
        return
    if step.get("type") != "Sequence":
        yield step
        return
    for list_name in ("normalizers", "pretokenizers"):
        yield from _records(step.get(list_name), list_name)


def _byte_bpe(
    tables: _Tables, model: dict[str, Any], steps: Sequence[dict[str, Any]], roles: Mapping[str, str]
) -> ByteBpeTokenizer:
    return ByteBpeTokenizer(
        vocab=tables.vocab,
        merges=tables.merges,
        specials=tables.special,
        whole=tables.whole,
        split=_split(steps),
        ignore_merges=bool(model.get("ignore_merges")),
        bos=roles.get("bos_token"),
        eos=roles.get("eos_token"),
        pad=roles.get("pad_token"),
    )


def _split(steps: Sequence[dict[str, Any]]) -> str:
    """The known pattern that the pipeline splits by."""
    patterns = [step.get("pattern") for step in steps if step.get("type") == "Split"]
    byte_level = next(step for step in steps if step.get("type") == "ByteLevel")
    if byte_level.get("add_prefix_space") or len(patterns) + 1 != len(steps):
        raise UnsupportedFormat("a byte-level pipeline with steps that Llama's does not have")
    if patterns == [{"Regex": LLAMA3_SPLIT}] and not byte_level.get("use_regex", True):
        return LLAMA3_SPLIT
    if not patterns and byte_level.get("use_regex", True):
        return GPT2_SPLIT
    raise UnsupportedFormat(f"a split pattern that is not Llama 3's: {str(patterns)[:120]}")


def _sentencepiece(
    tables: _Tables, steps: Sequence[dict[str, Any]], roles: Mapping[str, str]
) -> SentencePieceTokenizer:
    names = {**tables.vocab, **tables.whole, **tables.special}
    size = 1 + max(names.values(), default=-1)
    if size != len(set(names.values())):
        raise TokenizerError(f"{len(set(names.values()))} pieces, but the highest id is {size - 1}")
    scores = _scores(tables)
    pieces = [SpmPiece("", 0.0, NORMAL)] * size
    for text, id in names.items():
        kind = _piece_kind(text, tables)
        pieces[id] = SpmPiece(text, scores.get(text, scores[""]) if kind == NORMAL else 0.0, kind)
    return SentencePieceTokenizer(
        pieces,
        unk_id=names.get(roles.get("unk_token", SPM_UNKNOWN)),
        bos_id=names.get(roles.get("bos_token", SPM_BEGIN)),
        eos_id=names.get(roles.get("eos_token", SPM_END)),
        pad_id=names.get(roles.get("pad_token", "")),
        dummy_prefix=_has_dummy_prefix(steps),
        merges=tables.merges,
    )


def _scores(tables: _Tables) -> dict[str, float]:
    """What SentencePiece would call the merge order: the sooner, the higher; "" stands for what never merges."""
    scores = {"": -float(len(tables.merges))}
    for rank, (left, right) in enumerate(tables.merges):
        scores.setdefault(left + right, -float(rank))
    return scores


def _piece_kind(text: str, tables: _Tables) -> int:
    if text == SPM_UNKNOWN:
        return UNKNOWN
    if text in tables.special:
        return CONTROL
    if text in tables.whole:
        return USER_DEFINED
    is_byte = len(text) == 6 and text.startswith("<0x") and text.endswith(">")
    return BYTE if is_byte else NORMAL


def _has_dummy_prefix(steps: Sequence[dict[str, Any]]) -> bool:
    """Whether a space is put in front: by a `Prepend`, or by `Metaspace` in newer files."""
    known = {"Prepend", "Replace", "Metaspace"}
    unknown = [str(step.get("type")) for step in steps if step.get("type") not in known]
    if unknown or any(step.get("split", True) for step in steps if step.get("type") == "Metaspace"):
        raise UnsupportedFormat(f"a SentencePiece pipeline with steps that Llama's does not have: {unknown}")
    return any(
        step.get("type") == "Prepend"
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps
    )
