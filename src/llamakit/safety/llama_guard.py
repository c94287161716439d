"""Llama Guard as a shield: a policy and a conversation to the model, its words to a verdict.

The model is passed in, in one of two ways: as something that answers messages, whose server writes
the release's own policy around them; or as something that continues ids, for which the prompt is
written here, with any policy. What the model does not call safe is unsafe.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from llamakit.core.errors import ConfigError
from llamakit.core.messages import Message, TextPart, user
from llamakit.safety.shields import DEFAULT_WORDS, Violation
from llamakit.text.formats.format import Prompt
from llamakit.text.formats.guard import RELEASES, GuardFormat, GuardRelease, read_verdict
from llamakit.text.formats.guard_policies import Category

Answer = Callable[[Sequence[Message]], Awaitable[str]]
"""A conversation to the text of a greedy answer."""

Continue = Callable[[Prompt], Awaitable[str]]
"""A prompt to the text of a greedy continuation."""

MAX_TURNS = 32
"""Of the conversation that are shown; the last is the one that is judged."""


def release_named(name: str) -> GuardRelease:
    """The release of that name, or `ConfigError` with the names there are."""
    for release in RELEASES:
        if release.name == name:
            return release
    raise ConfigError(f"no Llama Guard release {name!r}; there are {', '.join(each.name for each in RELEASES)}")


class LlamaGuard:
    """A shield over one guard model; make it with `answering` or `continuing`."""

    def __init__(self, name: str, ask: Answer, policy: Mapping[str, Category], user_message: str) -> None:
        self.name = name
        self._ask = ask
        self._policy = policy
        self._user_message = user_message

    @classmethod
    def answering(
        cls, name: str, answer: Answer, release: GuardRelease, *, user_message: str = DEFAULT_WORDS
    ) -> LlamaGuard:
        """Over a served guard model, by the policy the release was trained with."""
        policy = {f"{release.prefix}{number}": category for number, category in enumerate(release.categories, 1)}
        return cls(name, answer, policy, user_message)

    @classmethod
    def continuing(
        cls,
        name: str,
        go_on: Continue,
        format: GuardFormat,
        *,
        categories: Sequence[Category] | None = None,
        excluded: Collection[str] = (),
        user_message: str = DEFAULT_WORDS,
    ) -> LlamaGuard:
        """Over a guard model that takes ids; `categories` replace its own, `excluded` codes are left out."""
        policy = format.policy(categories, excluded)

        async def ask(messages: Sequence[Message]) -> str:
            return await go_on(format.render_policy(messages, policy))

        return cls(name, ask, policy, user_message)

    async def check(self, messages: Sequence[Message]) -> Violation | None:
        """Judge the last thing said, by a person, an agent or a tool."""
        turns = spoken(messages)
        if not turns:
            return None
        verdict = read_verdict(await self._ask(turns), self._policy)
        if verdict.is_safe:
            return None
        return Violation(
            shield=self.name,
            user_message=self._user_message,
            categories=tuple(category.name for category in verdict.categories),
            metadata={"violation_type": ",".join(verdict.codes), "is_clear": verdict.is_clear},
        )


def spoken(messages: Sequence[Message], *, most: int = MAX_TURNS) -> list[Message]:
    """The last turns of a conversation, a person's and an agent's in alternation, the person first.

    What a tool says is judged as if a person had said it, since it is no word of the agent's. Turns of
    one side are joined; system messages and what has no text are left out.
    """
    turns: list[Message] = []
    for message in messages:
        text = "\n".join([message.text, *(f"{call.name}({call.arguments})" for call in message.tool_calls)]).strip()
        if not text or message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1].role == role:
            text = f"{turns.pop().text}\n\n{text}"
        turns.append(Message(role=role, content=(TextPart(text=text),)))
    turns = turns[-most:]
    if turns and turns[0].role == "assistant":
        turns.insert(0, user("(Earlier turns are not shown.)"))
    return turns
