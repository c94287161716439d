"""Base models: BOS and text."""

from __future__ import annotations

import pytest

from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ToolSpec, assistant, user
from llamakit.text.formats.base import BaseFormat
from llamakit.text.tokenizer import Tokenizer


def test_bos_and_text(llama3: Tokenizer) -> None:
    prompt = BaseFormat(llama3).render([user("The capital of France is")])
    assert prompt.ids == (128000, 791, 6864, 315, 9822, 374)
    assert prompt.stop_ids == (128001, 128008, 128009)
    assert prompt.continues


def test_a_conversation_is_one_text(spm: Tokenizer) -> None:
    prompt = BaseFormat(spm).render([user("the llama"), assistant("walked")])
    assert prompt.ids[0] == 1
    assert spm.decode(prompt.ids) == "the llama\n\nwalked"


def test_training(small: Tokenizer) -> None:
    form = BaseFormat(small)
    ids, mask = form.render_training([user("the llama"), assistant(" walked")])
    prompt = form.render([user("the llama")]).ids
    assert tuple(ids[: len(prompt)]) == prompt
    assert [id for id, own in zip(ids, mask, strict=True) if own] == [*small.encode(" walked"), small.eos_ids[0]]


def test_tools_are_refused(small: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="base format has no tools"):
        BaseFormat(small).render([user("x")], tools=[ToolSpec(name="f")])
