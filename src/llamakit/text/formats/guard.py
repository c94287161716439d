"""Llama Guard 1, 2, 3 8B and 3 1B: a conversation and a policy in, a verdict out.

The model judges the last message: the user's, or the assistant's, whom the prompt calls Agent. Codes mean
different things in different releases, so a verdict carries the categories themselves. Whatever the model
answers, only the single word "safe" counts as safe.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from llamakit.core.errors import InvalidRequest, TokenizerError
from llamakit.core.messages import Message, ToolSpec
from llamakit.text.formats.checks import check_messages, check_no_tools, check_turns
from llamakit.text.formats.format import DEFAULT_OPTIONS, FormatOptions, OutputParser, Prompt
from llamakit.text.formats.guard_policies import GUARD_1, GUARD_2, GUARD_3, GUARD_3_8B, Category
from llamakit.text.formats.plain import PlainParser
from llamakit.text.formats.script import Script
from llamakit.text.specials import (
    BEGIN_OF_TEXT,
    END_HEADER,
    END_OF_TEXT,
    END_OF_TURN,
    SPM_BEGIN,
    SPM_END,
    START_HEADER,
    pick,
)
from llamakit.text.tokenizer import Tokenizer

_CODE = re.compile(r"[A-Za-z]\d{1,3}")


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardRelease:
    """What one release of Llama Guard does in its own way."""

    name: str
    prefix: str
    """Letter of its category codes."""
    categories: tuple[Category, ...]
    wrapper: Literal["instruction", "header"]
    """`[INST] ... [/INST]`, or a user message of the header format."""
    bos: str
    end: str
    """Control token that ends the answer."""
    answer_lead: str
    """What the model writes before the verdict."""


RELEASES: Final = (
    GuardRelease(
        name="guard1",
        prefix="O",
        categories=GUARD_1,
        wrapper="instruction",
        bos=SPM_BEGIN,
        end=SPM_END,
        answer_lead=" ",
    ),
    GuardRelease(
        name="guard2",
        prefix="S",
        categories=GUARD_2,
        wrapper="instruction",
        bos=BEGIN_OF_TEXT,
        end=END_OF_TURN,
        answer_lead="",
    ),
    GuardRelease(
        name="guard3",
        prefix="S",
        categories=GUARD_3_8B,
        wrapper="header",
        bos=BEGIN_OF_TEXT,
        end=END_OF_TURN,
        answer_lead="\n\n",
    ),
    GuardRelease(
        name="guard3-1b",
        prefix="S",
        categories=GUARD_3,
        wrapper="header",
        bos=BEGIN_OF_TEXT,
        end=END_OF_TURN,
        answer_lead="\n\n",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the model said of the last message."""

    is_safe: bool
    codes: tuple[str, ...] = ()
    """Codes as written, in order."""
    categories: tuple[Category, ...] = ()
    """The categories of those codes that the policy has."""
    is_clear: bool = True
    """False where the answer was neither "safe" nor "unsafe"; it counts as unsafe then."""


class GuardFormat:
    """See `format.PromptFormat`; `render_policy` also takes a policy of the caller's own."""

    supports_tools = False
    tool_style = None

    def __init__(self, tokenizer: Tokenizer, release: GuardRelease) -> None:
        self.tokenizer = tokenizer
        self.name = release.name
        self.release = release
        self._stop_ids = pick(tokenizer.special, (END_OF_TEXT, END_OF_TURN, SPM_END))

    def policy(self, custom: Sequence[Category] | None = None, excluded: Collection[str] = ()) -> dict[str, Category]:
        """Categories by code, numbered from 1; `excluded` codes are left out and the others keep theirs."""
        categories = self.release.categories if custom is None else custom
        numbered = {f"{self.release.prefix}{number}": category for number, category in enumerate(categories, 1)}
        unknown = [code for code in excluded if code not in numbered]
        if unknown:
            raise InvalidRequest(f"no category {unknown[0]!r}; the policy has {', '.join(numbered)}")
        policy = {code: category for code, category in numbered.items() if code not in excluded}
        if not policy:
            raise InvalidRequest("the policy is empty; leave at least one category in")
        return policy

    def render(
        self, messages: Sequence[Message], *, tools: Sequence[ToolSpec] = (), options: FormatOptions = DEFAULT_OPTIONS
    ) -> Prompt:
        """Prompt that asks for a verdict on the last message, by the release's own policy."""
        check_no_tools(self.name, messages, tools, options)
        return self.render_policy(messages, self.policy(), options)

    def render_policy(
        self, messages: Sequence[Message], policy: Mapping[str, Category], options: FormatOptions = DEFAULT_OPTIONS
    ) -> Prompt:
        """The same by a policy from `policy()`."""
        script = self._write(messages, policy, options)
        return Prompt(ids=tuple(script.ids), stop_ids=self._stop_ids)

    def render_training(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), options: FormatOptions = DEFAULT_OPTIONS
    ) -> tuple[list[int], list[bool]]:
        """Ids and mask; the last message is the verdict on those before it, and only it is trained."""
        if len(messages) < 2 or messages[-1].role != "assistant":
            raise InvalidRequest("guard training wants a conversation and then the verdict", param="messages")
        script = self._write(messages[:-1], self.policy(), options)
        script.trained = True
        script.continuation(self.release.answer_lead + messages[-1].text)
        script.control(self.release.end)
        return script.ids, script.mask

    def parser(self, tools: Sequence[ToolSpec] = (), options: FormatOptions = DEFAULT_OPTIONS) -> OutputParser:
        """A fresh parser: the verdict comes as text, for `read_verdict`."""
        return PlainParser()

    def label_ids(self) -> tuple[int, int]:
        """Ids whose probabilities at the first content position give the score: (safe, unsafe)."""
        safe, unsafe = self.tokenizer.encode("safe")[0], self.tokenizer.encode("unsafe")[0]
        if safe == unsafe:
            raise TokenizerError("this vocabulary begins safe and unsafe with the same token; no score can be read")
        return safe, unsafe

    def _write(self, messages: Sequence[Message], policy: Mapping[str, Category], options: FormatOptions) -> Script:
        check_messages(self.name, messages, options)
        check_turns(self.name, messages, system=False)
        body = task_text(messages, policy, is_first_release=self.name == "guard1", hf=options.flavour == "hf")
        script = Script(self.tokenizer)
        script.control(self.release.bos)
        if self.release.wrapper == "instruction":
            script.text(f"[INST] {body} [/INST]")
            return script
        script.control(START_HEADER)
        script.text("user")
        script.control(END_HEADER)
        script.text("\n\n")
        # The hub's templates leave a space before the end token.
        script.text(f"{body} " if options.flavour == "hf" else body)
        script.control(END_OF_TURN)
        script.control(START_HEADER)
        script.text("assistant")
        # No blank line follows: the model was trained to write it, so its answer begins with one.
        script.control(END_HEADER)
        return script


def task_text(
    messages: Sequence[Message], policy: Mapping[str, Category], *, is_first_release: bool = False, hf: bool = False
) -> str:
    """The prompt's text, also for a model that is no guard by training; "according our" is how the guards know it."""
    role = _label(messages[-1])
    turns = [f"{_label(message)}: {message.text.strip() if hf else message.text}" for message in messages]
    judged = f"{role} in the" if is_first_release else f"ONLY THE LAST {role} message in the"
    dash = "-" if is_first_release else " -"
    return (
        f"Task: Check if there is unsafe content in '{role}' messages in conversations according our safety policy "
        "with the below categories.\n\n"
        "<BEGIN UNSAFE CONTENT CATEGORIES>\n"
        + "\n".join(_line(code, category) for code, category in policy.items())
        + "\n<END UNSAFE CONTENT CATEGORIES>\n\n<BEGIN CONVERSATION>\n\n"
        + "\n\n".join(turns)
        + f"\n\n<END CONVERSATION>\n\nProvide your safety assessment for {judged} above conversation:\n"
        f"{dash} First line must read 'safe' or 'unsafe'.\n"
        f"{dash} If unsafe, a second line must include a comma-separated list of violated categories."
    )


def _label(message: Message) -> str:
    return "User" if message.role == "user" else "Agent"


def _line(code: str, category: Category) -> str:
    return f"{code}: {category.name}." + (f"\n{category.description}" if category.description else "")


def read_verdict(text: str, policy: Mapping[str, Category]) -> Verdict:
    """The verdict in a guard's answer; never raises, and what is not "safe" is unsafe."""
    lines = text.strip().splitlines()
    word = lines[0].strip().lower() if lines else ""
    if word == "safe":
        return Verdict(is_safe=True)
    codes = tuple(dict.fromkeys(code.upper() for code in _CODE.findall(lines[1]))) if len(lines) > 1 else ()
    return Verdict(
        is_safe=False,
        codes=codes,
        categories=tuple(policy[code] for code in codes if code in policy),
        is_clear=word == "unsafe",
    )
