import asyncio
from typing import ClassVar

import pytest
from tests.tiny import ByteTokenizer

from llamakit.core.errors import ConfigError, ToolError
from llamakit.core.messages import ImagePart, Message, ToolCall, assistant, system, tool_result, user
from llamakit.safety.llama_guard import LlamaGuard, release_named, spoken
from llamakit.safety.shields import Guarded, Shields, Violation
from llamakit.text.formats.guard import GuardFormat
from llamakit.text.formats.guard_policies import Category

GUARD = release_named("guard3-1b")
CALL = ToolCall(id="1", name="search", arguments='{"q": "x"}')


class Judge:
    """A shield that says what it is told to."""

    def __init__(self, name: str, verdict=None, *, after: float = 0.0) -> None:
        self.name = name
        self.verdict = verdict
        self.after = after

    async def check(self, messages, *, salt=""):
        await asyncio.sleep(self.after)
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


def answering(text: str, seen: list | None = None) -> LlamaGuard:
    async def answer(messages, salt):
        if seen is not None:
            seen.append(list(messages))
        return text

    return LlamaGuard.answering("guard", answer, GUARD)


@pytest.mark.parametrize("text", ["safe", "\n\nsafe", " Safe \n"])
async def test_safe_is_no_violation(text: str):
    assert await answering(text).check([user("hi")]) is None


@pytest.mark.parametrize(
    ("text", "codes", "is_clear"),
    [("\n\nunsafe\nS1", "S1", True), ("unsafe\nS1,S3", "S1,S3", True), ("unsafe", "", True), ("", "", False),
     ("I would say safe", "", False), ("safer", "", False), ("unsafe\nS99", "S99", True)],
)  # fmt: skip
async def test_anything_else_is_one(text: str, codes: str, is_clear: bool):
    violation = await answering(text).check([user("hi")])
    assert violation is not None and violation.level == "error" and violation.shield == "guard"
    assert violation.metadata == {"violation_type": codes, "is_clear": is_clear}
    if codes == "S1":
        assert violation.categories == (GUARD.categories[0].name,)


async def test_what_is_judged_is_turns_in_alternation():
    seen: list = []
    conversation = [system("be"), user("a"), user("b"), assistant("c", CALL), tool_result(CALL, "page text"), user("d")]
    await answering("safe", seen).check(conversation)
    assert [(message.role, message.text) for message in seen[0]] == [
        ("user", "a\n\nb"), ("assistant", 'c\nsearch({"q": "x"})'), ("user", "page text\n\nd"),
    ]  # fmt: skip


def test_long_conversations_are_cut_at_their_beginning():
    long = [message for n in range(40) for message in (user(f"q{n}"), assistant(f"a{n}"))]
    turns = spoken([*long, user("last")], most=4)
    assert [message.role for message in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert turns[-1].text == "last" and "not shown" in turns[0].text


async def test_what_has_no_words_is_not_sent_to_a_judge_of_words():
    seen: list = []
    image = Message(role="user", content=(ImagePart(data=b"x", mime="image/png"),))
    assert await answering("unsafe", seen).check([image]) is None
    assert seen == []


async def test_a_policy_of_ones_own_is_in_the_prompt():
    prompts = []

    async def go_on(prompt, salt):
        prompts.append(prompt)
        return "unsafe\nS1"

    class Tokens(ByteTokenizer):
        special: ClassVar = {**ByteTokenizer.special, "<|end_header_id|>": 300}

    format = GuardFormat(Tokens(), GUARD)
    guard = LlamaGuard.continuing("mine", go_on, format, categories=[Category(name="Llama slander")])
    violation = await guard.check([user("llamas spit")])
    assert violation is not None and violation.categories == ("Llama slander",)
    text = bytes(id for id in prompts[0].ids if id < 256).decode()
    assert "S1: Llama slander." in text and "User: llamas spit" in text


def test_an_unknown_release_names_the_known():
    with pytest.raises(ConfigError, match="guard3-1b"):
        release_named("guard9")


async def test_shields_are_asked_at_once_and_the_first_in_order_speaks():
    one, two = Violation(shield="one"), Violation(shield="two")
    shields = Shields(
        [Guarded(shield=Judge("ok")), Guarded(shield=Judge("one", one, after=0.05)), Guarded(shield=Judge("two", two))]
    )
    assert await shields.check([user("x")]) is one
    assert await Shields([]).check([user("x")]) is None


@pytest.mark.parametrize("failure", [ToolError("down"), ConnectionError("down"), TimeoutError()])
async def test_a_shield_that_cannot_judge_closes_the_gate(failure: Exception):
    violation = await Shields([Guarded(shield=Judge("down", failure))]).check([user("x")])
    assert violation is not None and "could not judge" in violation.metadata["error"]
    assert await Shields([Guarded(shield=Judge("down", failure), fails_open=True)]).check([user("x")]) is None


async def test_a_slow_shield_closes_the_gate():
    violation = await Shields([Guarded(shield=Judge("slow", after=60), seconds=0.05)]).check([user("x")])
    assert violation is not None


async def test_our_own_bug_is_not_a_verdict():
    with pytest.raises(ExceptionGroup):
        await Shields([Guarded(shield=Judge("broken", KeyError("x")))]).check([user("x")])


def test_names_are_single():
    with pytest.raises(ConfigError, match="same name"):
        Shields([Guarded(shield=Judge("a")), Guarded(shield=Judge("a"))])
