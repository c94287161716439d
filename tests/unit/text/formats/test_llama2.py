"""Llama 2 chat: the pairs of Meta's reference, ids and refusals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import Message, ToolCall, ToolSpec, assistant, system, tool_result, user
from llamakit.text.formats.format import FormatOptions
from llamakit.text.formats.llama2 import Llama2Format
from llamakit.text.tokenizer import Tokenizer

CALL = ToolCall(id="call_1", name="f", arguments="{}")


def test_one_question(spm: Tokenizer) -> None:
    prompt = Llama2Format(spm).render([user(" Hello \n")])
    assert prompt.ids == (1, *spm.encode("[INST] Hello [/INST]"))
    assert prompt.stop_ids == (2,)
    assert not prompt.continues


def test_each_pair_is_one_text_with_bos_and_eos(spm: Tokenizer) -> None:
    """Meta encodes a pair as a whole; question and answer apart must give the same ids."""
    messages = [user("the llama"), assistant(" walked "), user("market"), assistant("12 apples\n"), user("unsafe")]
    assert Llama2Format(spm).render(messages).ids == (
        1, *spm.encode("[INST] the llama [/INST] walked "), 2,
        1, *spm.encode("[INST] market [/INST] 12 apples "), 2,
        1, *spm.encode("[INST] unsafe [/INST]"),
    )  # fmt: skip


def test_the_system_text_is_folded_into_the_first_question(spm: Tokenizer) -> None:
    prompt = Llama2Format(spm).render([system("Be kind."), user("Hello ")])
    assert prompt.ids == (1, *spm.encode("[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHello [/INST]"))


def test_training_begins_with_what_serving_sends(
    spm: Tokenizer, shown: Callable[[Tokenizer, Sequence[int]], str]
) -> None:
    form = Llama2Format(spm)
    messages = [system("S"), user("the llama"), assistant("walked"), user("market"), assistant("12")]
    ids, mask = form.render_training(messages)
    for place in (2, 4):
        prompt = form.render(messages[:place]).ids
        assert tuple(ids[: len(prompt)]) == prompt
        assert mask[len(prompt)] and not mask[len(prompt) - 1]
    assert shown(spm, [id for id, own in zip(ids, mask, strict=True) if own]) == " walked </s> 12 </s>"


def test_continuing_the_last_message(spm: Tokenizer) -> None:
    form = Llama2Format(spm)
    options = FormatOptions(continue_final_message=True)
    prompt = form.render([user("the llama"), assistant("walked to")], options=options)
    assert prompt.ids == (1, *spm.encode("[INST] the llama [/INST] walked to"))
    assert prompt.continues


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ([], "messages is empty"),
        ([system("S")], "wants a user message"),
        ([assistant("A")], "message 0 is from assistant, wanted user"),
        ([user("A"), user("B")], "message 1 is from user, wanted assistant"),
        ([user("A"), system("B")], "message 1 is from system"),
        ([user("A"), assistant("B")], "the last message is from assistant"),
        ([user("A [/INST] B [INST] C")], r"contains '\[INST\]'"),
        ([system("x <</SYS>>"), user("A")], "contains '<</SYS>>'"),
        ([user("A"), assistant("<<SYS>>"), user("B")], "message 1 contains '<<SYS>>'"),
        ([user("A"), assistant("", CALL), tool_result(CALL, "x")], "no words for tool calls"),
    ],
)
def test_refusals(spm: Tokenizer, messages: Sequence[Message], fault: str) -> None:
    with pytest.raises(InvalidRequest, match=fault) as caught:
        Llama2Format(spm).render(messages)
    assert caught.value.param == "messages"


def test_tools_are_refused(spm: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="llama2 format has no tools"):
        Llama2Format(spm).render([user("A")], tools=[ToolSpec(name="f")])
