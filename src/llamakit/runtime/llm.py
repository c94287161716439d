"""A model in memory with everything around it: text in, events out, from any thread or event loop.

`LLM.load` opens a checkpoint of any format by name or path; `stream` answers. The engine runs on a
thread of its own (`loop`), so that a slow reader never stops the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import queue
import secrets
import threading
from array import array
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from torch.nn.functional import normalize

from llamakit.core.errors import PromptTooLong
from llamakit.core.messages import Answer, AnswerEvent, Done, Message, ToolSpec, fold
from llamakit.core.model_config import ModelConfig
from llamakit.core.sampling import Constraint, SamplingParams
from llamakit.engine.embed import embed
from llamakit.engine.engine import EngineStats
from llamakit.engine.grammar import CompiledConstraint, Vocabulary, compile_constraint
from llamakit.engine.request import EngineEvent, Matcher, Request, TokenEvent
from llamakit.runtime.answering import Answering, Stopper
from llamakit.runtime.ask import Ask
from llamakit.runtime.bridge import AsyncDoor
from llamakit.runtime.loop import EngineLoop
from llamakit.runtime.opening import LoadOptions, Opened, open_model
from llamakit.runtime.prompting import Prepared, Prompter, vocabulary_of
from llamakit.text.formats.format import DEFAULT_OPTIONS, FormatOptions

_HEAVY_CHARS = 4096
_HEAVY_TOOLS = 8
_MAX_COMPILED = 64
"""Constraints kept compiled; the longest unused goes first."""

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all while weights load."""


class LLM:
    """One loaded model. Satisfies `core.completer.MessageCompleter` and `TokenCompleter`."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self.name = opened.name
        self.config: ModelConfig = opened.model.config
        self.tokenizer = opened.tokenizer
        self.prompter = Prompter(
            opened.name,
            opened.tokenizer,
            opened.prompt_format,
            context=opened.context,
            stop_ids=opened.stop_ids,
            defaults=opened.sampling_defaults,
            prelude=opened.prelude,
        )
        self._loop = EngineLoop(opened.engine, name=opened.name)
        self._door = AsyncDoor(self._loop)
        self._vocabulary: Vocabulary | None = None
        self._compiled: dict[Constraint, CompiledConstraint] = {}
        self._compiling = threading.Lock()
        self._loop.start()

    @classmethod
    def load(
        cls,
        name: str,
        *,
        options: LoadOptions | None = None,
        shown: str | None = None,
        paths: bool = True,
        progress: Progress | None = None,
    ) -> LLM:
        """Open a model by catalog name, hub id, path (unless `paths` is off), or name of an embedded or created one.

        `shown` is what messages call it; by default its own name.
        """
        return cls(open_model(name, options or LoadOptions(), shown=shown, paths=paths, progress=progress))

    # -- what it is --------------------------------------------------------------------------------

    @property
    def format_name(self) -> str:
        """Name of the prompt format."""
        return self.prompter.format.name

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        return self._opened.context

    @property
    def weights_bytes(self) -> int:
        """Bytes the weights occupy."""
        return self._opened.weights_bytes

    @property
    def cache_bytes(self) -> int:
        """Bytes set aside for keys and values."""
        return self._opened.cache_bytes

    @property
    def device(self) -> str:
        """Where the weights are."""
        return str(self._opened.model.device)

    @property
    def opened(self) -> Opened:
        """The parts this was made of."""
        return self._opened

    @property
    def failure(self) -> BaseException | None:
        """What broke the engine, if something did."""
        return self._loop.failure

    def stats(self) -> EngineStats:
        """Counters of the engine; cheap, from any thread."""
        return self._opened.engine.stats()

    # -- answers -----------------------------------------------------------------------------------

    def stream(
        self,
        messages: Sequence[Message],
        *,
        sampling: Mapping[str, Any] | SamplingParams | None = None,
        tools: Sequence[ToolSpec] = (),
        options: FormatOptions = DEFAULT_OPTIONS,
    ) -> Generator[AnswerEvent, None, None]:
        """Answer a conversation; closing the iterator stops the work."""
        return self.answer(Ask(messages=tuple(messages), tools=tools, sampling=_given(sampling), options=options))

    def stream_prompt(
        self, prompt: str | Sequence[int], *, sampling: Mapping[str, Any] | SamplingParams | None = None
    ) -> Generator[AnswerEvent, None, None]:
        """Continue raw text or ids; closing the iterator stops the work."""
        return self.answer(Ask(prompt=prompt, sampling=_given(sampling)))

    def answer(self, ask: Ask) -> Generator[AnswerEvent, None, None]:
        """The events of one ask, `Done` last. Bad asks raise here, before any event."""
        prepared = self.prompter.prepare(ask)
        matcher = self._matcher(prepared.sampling.constraint)
        inbox: queue.SimpleQueue[list[AnswerEvent] | BaseException] = queue.SimpleQueue()
        job = self._job(ask, prepared, matcher, inbox.put, inbox.put)
        self._loop.submit(job)
        return _drain(inbox, job, self._loop)

    async def answer_async(self, ask: Ask) -> AsyncGenerator[AnswerEvent, None]:
        """The same for an event loop; closing the generator or cancelling its task stops the work."""
        if _is_heavy(ask):
            prepared = await asyncio.to_thread(self.prompter.prepare, ask)
        else:
            prepared = self.prompter.prepare(ask)
        constraint = prepared.sampling.constraint
        matcher = None if constraint is None else await asyncio.to_thread(self._matcher, constraint)
        events = self._door.run(lambda deliver, fail: self._job(ask, prepared, matcher, deliver, fail))
        async with contextlib.aclosing(events):
            async for event in events:
                yield event

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: SamplingParams, tools: Sequence[ToolSpec] = ()
    ) -> list[Answer]:
        """One answer per conversation, in order; they run together."""
        streams = [self.stream(messages, sampling=sampling, tools=tools) for messages in conversations]
        return [fold(stream) for stream in streams]

    def complete_ids(self, prompts: Sequence[Sequence[int]], sampling: SamplingParams) -> list[list[int]]:
        """Generated ids of each prompt, in order; they run together."""
        collectors = [_IdCollector(self._request(prompt, sampling)) for prompt in prompts]
        for collector in collectors:
            self._loop.submit(collector)
        return [collector.result.result() for collector in collectors]

    def embed(self, inputs: Sequence[str | Sequence[int]]) -> tuple[list[array[float]], int]:
        """One vector of unit length per input (mean of the last states), float32, and the number of prompt tokens."""
        prompts = [self.prompter.prompt_ids(Ask(prompt=text)) for text in inputs]
        for place, ids in enumerate(prompts):
            if len(ids) > self.context:
                raise PromptTooLong(
                    f"input {place} has {len(ids)} tokens, {self.name} holds {self.context}; shorten it", param="input"
                )
        model = self._opened.model
        vectors = self._loop.call(lambda _: normalize(embed(model, prompts), dim=-1)).result()
        return [array("f", row) for row in vectors.tolist()], sum(map(len, prompts))

    def token_text(self, token: int) -> str:
        """The text of one token by itself; control tokens by name."""
        return self.prompter.token_text(token)

    def close(self) -> None:
        """Stop the engine and give back its memory; answers that still run end with EngineStopped."""
        self._loop.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside ------------------------------------------------------------------------------------

    def _job(
        self,
        ask: Ask,
        prepared: Prepared,
        matcher: Callable[[], Matcher] | None,
        deliver: Callable[[list[AnswerEvent]], None],
        fail: Callable[[BaseException], None],
    ) -> Answering:
        def stopper() -> Stopper:
            return Stopper(self.tokenizer, prepared.sampling, continues=prepared.continues)

        request = Request(
            id=prepared.id,
            prompt_ids=prepared.prompt_ids,
            sampling=prepared.sampling,
            stop_ids=prepared.stop_ids,
            priority=ask.priority,
            salt=ask.salt,
            matcher=matcher,
            stopper=stopper if prepared.sampling.stop else None,
        )
        return Answering(
            request,
            tokenizer=self.tokenizer,
            parser=prepared.parser,
            deliver=deliver,
            fail=fail,
            continues=prepared.continues,
            wants_progress=ask.progress,
            echo=prepared.echo,
        )

    def _request(self, prompt: Sequence[int], sampling: SamplingParams) -> Request:
        return Request(
            id=secrets.token_hex(12),
            prompt_ids=tuple(prompt),
            sampling=sampling,
            stop_ids=self._opened.stop_ids,
            matcher=self._matcher(sampling.constraint),
        )

    def _matcher(self, constraint: Constraint | None) -> Callable[[], Matcher] | None:
        if constraint is None:
            return None
        with self._compiling:
            compiled = self._compiled.pop(constraint, None)
            if compiled is None:
                if self._vocabulary is None:
                    self._vocabulary = vocabulary_of(self.tokenizer, self._opened.stop_ids)
                compiled = compile_constraint(constraint, self._vocabulary)
            self._compiled[constraint] = compiled  # last in, so the oldest goes first
            while len(self._compiled) > _MAX_COMPILED:
                self._compiled.pop(next(iter(self._compiled)))
        return compiled.matcher


class _IdCollector:
    """The job of a prompt whose ids alone are wanted."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.result: Future[list[int]] = Future()
        self._ids: list[int] = []

    def on_events(self, events: list[EngineEvent]) -> None:
        self._ids += [event.token for event in events if isinstance(event, TokenEvent) and event.choice == 0]
        if events[-1].is_last:
            self.result.set_result(self._ids)

    def on_error(self, error: BaseException) -> None:
        self.result.set_exception(error)


def _given(sampling: Mapping[str, Any] | SamplingParams | None) -> Mapping[str, Any]:
    """Given fields; a whole record gives every field."""
    if isinstance(sampling, SamplingParams):
        return {field.name: getattr(sampling, field.name) for field in dataclasses.fields(sampling)}
    return sampling or {}


def _is_heavy(ask: Ask) -> bool:
    """Whether rendering and encoding take long enough to leave the event loop."""
    if ask.messages is not None:
        return sum(len(message.text) for message in ask.messages) > _HEAVY_CHARS or len(ask.tools) > _HEAVY_TOOLS
    return isinstance(ask.prompt, str) and len(ask.prompt) > _HEAVY_CHARS


def _drain(
    inbox: queue.SimpleQueue[list[AnswerEvent] | BaseException], job: Answering, loop: EngineLoop
) -> Generator[AnswerEvent, None, None]:
    finished = False
    try:
        while not finished:
            item = inbox.get()
            if isinstance(item, BaseException):
                finished = True
                raise item
            for event in item:
                finished = isinstance(event, Done)
                yield event
    finally:
        if not finished:
            loop.cancel(job.request.id)
