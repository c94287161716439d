"""Code Llama's infilling prompts."""

from __future__ import annotations

import pytest

from llamakit.core.errors import InvalidRequest
from llamakit.text.detokenizer import Detokenizer
from llamakit.text.formats.infill import can_infill, infill_prompt
from llamakit.text.tokenizer import Tokenizer


def _ids(tokenizer: Tokenizer) -> tuple[int, int, int, int]:
    pre, suf, mid, end = (tokenizer.special[f"\u2581<{name}>"] for name in ("PRE", "SUF", "MID", "EOT"))
    return pre, suf, mid, end


def test_prefix_suffix_middle(code_llama: Tokenizer) -> None:
    pre, suf, mid, end = _ids(code_llama)
    prompt = infill_prompt(code_llama, "def f(", "return x")
    assert prompt.ids == (
        1, pre, *code_llama.encode("def f("), suf, *code_llama.encode("\u263areturn x")[2:], mid
    )  # fmt: skip
    assert prompt.stop_ids == (end, 2)


def test_suffix_first(code_llama: Tokenizer) -> None:
    pre, suf, mid, _ = _ids(code_llama)
    prompt = infill_prompt(code_llama, "def f(", " x", suffix_first=True)
    assert prompt.ids == (1, pre, suf, *code_llama.encode("\u263a x")[2:], mid, *code_llama.encode("def f("))


def test_the_middle_keeps_its_leading_space(code_llama: Tokenizer) -> None:
    prompt = infill_prompt(code_llama, "a", "b")
    middle = Detokenizer(code_llama, continues=prompt.continues)
    assert "".join(map(middle.push, code_llama.encode_continuation(" ab"))) == " ab"


def test_empty_sides(code_llama: Tokenizer) -> None:
    pre, suf, mid, _ = _ids(code_llama)
    assert infill_prompt(code_llama, "", "").ids == (1, pre, suf, mid)


def test_spelled_markers_are_text(code_llama: Tokenizer) -> None:
    ids = infill_prompt(code_llama, "a <MID> b", " <EOT>").ids
    assert [id for id in ids if code_llama.is_special(id)] == [1, *_ids(code_llama)[:3]]


def test_models_without_the_tokens_say_so(spm: Tokenizer, small: Tokenizer) -> None:
    for tokenizer in (spm, small):
        assert not can_infill(tokenizer)
        with pytest.raises(InvalidRequest, match="Code Llama 7B, 13B") as caught:
            infill_prompt(tokenizer, "a", "b")
        assert caught.value.param == "suffix"
