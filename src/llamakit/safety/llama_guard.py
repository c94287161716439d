"""Llama Guard as a shield: a policy and a conversation to the model, its words to a verdict.

The model is passed in, in one of three ways: as a guard that answers messages, whose server writes
the release's own policy around them; as something that continues ids, for which the prompt is written
here, with any policy; or as any model that answers messages, which is given the task in words. What the
model does not call safe is unsafe.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace

from llamakit.core.errors import ConfigError, InvalidRequest
from llamakit.core.messages import Message, TextPart, user
from llamakit.safety.shields import DEFAULT_WORDS, Violation
from llamakit.text.formats.format import Prompt
from llamakit.text.formats.guard import RELEASES, GuardFormat, GuardRelease, read_verdict, task_text
from llamakit.text.formats.guard_policies import Category

Answer = Callable[[Sequence[Message], str], Awaitable[str]]
"""A conversation and the salt of its tenant to the text of a greedy answer."""

Continue = Callable[[Prompt, str], Awaitable[str]]
"""A prompt and the salt of its tenant to the text of a greedy continuation."""

MAX_TURNS = 32
"""Of the conversation that are shown; the last is the one that is judged."""
MAX_CHARS = 12_000
"""Of what is shown; fits the context of every release. A longer last turn is judged in pieces."""
OVERLAP_CHARS = 400
"""Of a piece that the next one repeats, so that nothing hides on the border."""


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
    def prompted(
        cls,
        name: str,
        answer: Answer,
        categories: Sequence[Category],
        *,
        prefix: str = "S",
        excluded: Collection[str] = (),
        user_message: str = DEFAULT_WORDS,
    ) -> LlamaGuard:
        """Over any model that follows instructions, by any policy; how well it judges is up to the model."""
        numbered = {f"{prefix}{number}": category for number, category in enumerate(categories, 1)}
        unknown = [code for code in excluded if code not in numbered]
        if unknown:
            raise InvalidRequest(f"no category {unknown[0]!r}; the policy has {', '.join(numbered)}")
        policy = {code: category for code, category in numbered.items() if code not in excluded}
        if not policy:
            raise InvalidRequest("the policy is empty; leave at least one category in")

        async def ask(messages: Sequence[Message], salt: str) -> str:
            return await answer([user(task_text(messages, policy))], salt)

        return cls(name, ask, policy, user_message)

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

        async def ask(messages: Sequence[Message], salt: str) -> str:
            return await go_on(format.render_policy(messages, policy), salt)

        return cls(name, ask, policy, user_message)

    async def check(self, messages: Sequence[Message], *, salt: str = "") -> Violation | None:
        """Judge the last thing said, by a person, an agent or a tool."""
        for turns in views(spoken(messages)):
            verdict = read_verdict(await self._ask(turns, salt), self._policy)
            if not verdict.is_safe:
                return Violation(
                    shield=self.name,
                    user_message=self._user_message,
                    categories=tuple(category.name for category in verdict.categories),
                    metadata={"violation_type": ",".join(verdict.codes), "is_clear": verdict.is_clear},
                )
        return None


def views(turns: Sequence[Message], *, most: int = MAX_CHARS) -> list[list[Message]]:
    """What a judge is shown of turns: as many as fit, the last always; one that is too long itself, in pieces.

    The number of views grows with the length of the last turn and not with its square.
    """
    if not turns:
        return []
    last = turns[-1].text
    if len(last) > most:
        starts = range(0, len(last) - OVERLAP_CHARS, most - OVERLAP_CHARS)
        return [_opened([replace(turns[-1], content=(TextPart(text=last[at : at + most]),))]) for at in starts]
    shown, room = [turns[-1]], most - len(last)
    for turn in reversed(turns[:-1]):
        room -= len(turn.text)
        if room < 0:
            break
        shown.insert(0, turn)
    return [_opened(shown)]


def _opened(turns: list[Message]) -> list[Message]:
    """A person begins, because every release was trained so."""
    return [user("(Earlier turns are not shown.)"), *turns] if turns[0].role == "assistant" else turns


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
    return _opened(turns) if turns else turns
