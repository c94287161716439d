"""Ids to text piece by piece: nothing half, nothing lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.text.detokenizer import Detokenizer
from llamakit.text.tokenizer import Tokenizer


@pytest.fixture(scope="module", params=["small", "spm"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(request.param)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_pieces_join_to_the_whole(tokenizer: Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(-1, tokenizer.vocab_size), max_size=40))
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.push(id) for id in ids]
    assert "".join(pieces) + detokenizer.flush() == tokenizer.decode(ids)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_characters="\u2581", codec="utf-8"), max_size=60))
def test_text_comes_in_whole_characters(tokenizer: Tokenizer, text: str) -> None:
    detokenizer = Detokenizer(tokenizer)
    seen = ""
    for id in tokenizer.encode(text):
        seen += detokenizer.push(id)
        assert text.startswith(seen)
    assert seen + detokenizer.flush() == text


def test_an_unfinished_character_ends_as_replacement(small: Tokenizer) -> None:
    first_byte = next(id for id in range(small.vocab_size) if small.token_bytes(id) == b"\xf0")
    detokenizer = Detokenizer(small)
    assert detokenizer.push(first_byte) == ""
    assert detokenizer.flush() == "\ufffd"


def test_control_tokens_are_silent(small: Tokenizer) -> None:
    detokenizer = Detokenizer(small)
    assert [detokenizer.push(id) for id in small.special.values()] == [""] * len(small.special)


def test_sentencepiece_keeps_the_space_of_a_continuation(spm: Tokenizer) -> None:
    ids = spm.encode("the llama")
    assert "".join(map(Detokenizer(spm, continues=True).push, ids)) == " the llama"
    assert "".join(map(Detokenizer(spm).push, ids)) == "the llama"
