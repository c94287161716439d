"""From an ask to what the engine runs: prompt ids, sampling with the model's defaults, parser, constraint.

Knows text and formats, not threads and not tensors.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamakit.core.errors import InvalidRequest, PromptTooLong
from llamakit.core.messages import Message
from llamakit.core.sampling import Constraint, SamplingParams
from llamakit.engine.grammar import Vocabulary
from llamakit.runtime.answering import token_name
from llamakit.runtime.ask import Ask
from llamakit.runtime.tool_choice import tool_constraint
from llamakit.text.formats.format import OutputParser, PromptFormat
from llamakit.text.formats.infill import infill_prompt
from llamakit.text.formats.plain import PlainParser
from llamakit.text.specials import PYTHON_TAG
from llamakit.text.tokenizer import Tokenizer

_FIELDS = frozenset(field.name for field in dataclasses.fields(SamplingParams))


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """An ask, ready for the engine."""

    id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    stop_ids: frozenset[int]
    parser: Callable[[], OutputParser]
    continues: bool
    echo: str | None


class Prompter:
    """Prepares asks for one model."""

    def __init__(
        self,
        name: str,
        tokenizer: Tokenizer,
        prompt_format: PromptFormat,
        *,
        context: int,
        stop_ids: frozenset[int],
        defaults: Mapping[str, Any],
        prelude: Sequence[Message] = (),
    ) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.format = prompt_format
        self.context = context
        self.defaults = dict(defaults)
        self._stop_ids = stop_ids
        self._prelude = tuple(prelude)

    def sampling(self, given: Mapping[str, Any]) -> SamplingParams:
        """The given fields over the model's own defaults."""
        unknown = [name for name in given if name not in _FIELDS]
        if unknown:
            raise InvalidRequest(f"no sampling parameter {unknown[0]!r}; there are {', '.join(sorted(_FIELDS))}")
        return SamplingParams(**{**self.defaults, **given})

    def token_text(self, token: int) -> str:
        """The text of one token by itself; control tokens by name."""
        data = self.tokenizer.token_bytes(token)
        return data.decode("utf-8", errors="replace") if data else token_name(self.tokenizer, token)

    def prepare(self, ask: Ask) -> Prepared:
        """Render, check against the context, and merge; raises InvalidRequest and PromptTooLong."""
        sampling = self.sampling(ask.sampling)
        if ask.messages is not None:
            prepared = self._conversation(ask, sampling)
        else:
            prepared = self._raw(ask, sampling)
        self._check_length(prepared)
        return prepared

    def prompt_ids(self, ask: Ask) -> tuple[int, ...]:
        """The ids alone, whatever their number."""
        if ask.messages is not None:
            return self.format.render(self._begun(ask.messages), tools=ask.tools, options=ask.options).ids
        return self._raw(ask, SamplingParams()).prompt_ids

    def _conversation(self, ask: Ask, sampling: SamplingParams) -> Prepared:
        assert ask.messages is not None
        tools = () if ask.tool_choice == "none" else tuple(ask.tools)
        if tools and not self.format.supports_tools:
            raise InvalidRequest(
                f"{self.name} writes the {self.format.name} format, which has no tools; "
                "use a Llama 3.1 or later instruct model, or leave out tools",
                param="tools",
            )
        prompt = self.format.render(self._begun(ask.messages), tools=tools, options=ask.options)
        constraint = self._call_constraint(ask, sampling)
        if constraint is not None:
            sampling = dataclasses.replace(sampling, constraint=constraint)
        # An output that is held to a schema of the caller's own is text, whatever it looks like.
        parse_tools = tools if sampling.constraint is None or constraint is not None else ()
        return Prepared(
            id=_request_id(),
            prompt_ids=prompt.ids,
            sampling=sampling,
            stop_ids=self._stop_ids | frozenset(prompt.stop_ids),
            parser=lambda: self.format.parser(parse_tools, ask.options),
            continues=prompt.continues,
            echo=None,
        )

    def _begun(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The conversation behind what a created model begins with; the caller's system text replaces its own."""
        if not self._prelude:
            return messages
        if messages[0].role == "system":
            return (messages[0], *(m for m in self._prelude if m.role != "system"), *messages[1:])
        return (*self._prelude, *messages)

    def _call_constraint(self, ask: Ask, sampling: SamplingParams) -> Constraint | None:
        style = ask.options.tool_style or self.format.tool_style
        if style is None:
            return None
        constraint = tool_constraint(ask, style, python_tag=PYTHON_TAG in self.tokenizer.special)
        if constraint is None:
            return None
        if sampling.constraint is not None:
            if ask.tool_choice == "auto":
                return None
            raise InvalidRequest("a forced tool call and response_format exclude each other", param="tool_choice")
        return constraint

    def _raw(self, ask: Ask, sampling: SamplingParams) -> Prepared:
        assert ask.prompt is not None
        continues = True
        if ask.suffix is not None:
            assert isinstance(ask.prompt, str)
            prompt = infill_prompt(self.tokenizer, ask.prompt, ask.suffix)
            ids, stop_ids, continues = prompt.ids, self._stop_ids | frozenset(prompt.stop_ids), prompt.continues
        elif isinstance(ask.prompt, str):
            bos = self.tokenizer.bos_id
            ids = (*(() if bos is None else (bos,)), *self.tokenizer.encode(ask.prompt))
            stop_ids = self._stop_ids
        else:
            ids, stop_ids = tuple(ask.prompt), self._stop_ids
            for token in ids:
                if not 0 <= token < self.tokenizer.vocab_size:
                    raise InvalidRequest(
                        f"prompt holds token id {token}; {self.name} has ids 0 to {self.tokenizer.vocab_size - 1}",
                        param="prompt",
                    )
        if not ids:
            raise InvalidRequest("the prompt is empty and the model has no beginning-of-text token", param="prompt")
        echo = None
        if ask.echo:
            echo = ask.prompt if isinstance(ask.prompt, str) else self.tokenizer.decode(ids)
        return Prepared(
            id=_request_id(),
            prompt_ids=tuple(ids),
            sampling=sampling,
            stop_ids=stop_ids,
            parser=PlainParser,
            continues=continues,
            echo=echo,
        )

    def _check_length(self, prepared: Prepared) -> None:
        length, wanted = len(prepared.prompt_ids), prepared.sampling.max_tokens
        room = self.context - length
        if room < (1 if wanted is None else min(wanted, 1)):
            raise PromptTooLong(
                f"the prompt has {length} tokens, {self.name} holds {self.context}; "
                "shorten it, or serve with a larger --context if the model was trained for one"
            )
        if wanted is not None and wanted > room:
            raise PromptTooLong(
                f"the prompt's {length} tokens and max_tokens {wanted} make {length + wanted}, "
                f"{self.name} holds {self.context}; ask for at most {room}",
                param="max_tokens",
            )


def vocabulary_of(tokenizer: Tokenizer, stop_ids: frozenset[int]) -> Vocabulary:
    """What the constraint compiler must know of a tokenizer."""
    first = [token for token in tokenizer.eos_ids if token in stop_ids]
    return Vocabulary(
        [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)],
        eos_ids=[*first, *sorted(stop_ids.difference(first))],
        special=tokenizer.special,
        encode=tokenizer.encode,
    )


def _request_id() -> str:
    return secrets.token_hex(12)
