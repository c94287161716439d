"""OpenAI's chat completions: wire request -> `ChatRequest`, and `AnswerEvent`s -> chunks or one body.

Field-complete against the published API. What a field asks for and nothing here can give is refused when
it would change the answer, and named as set aside when it is a hint.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api import openai_sampling
from llamakit.api.inference import ChatRequest
from llamakit.api.openai_answer import (
    AnswerHead,
    ChatLogprobs,
    CompletionUsage,
    PromptProgress,
    WireTimings,
    chat_logprobs,
    finish_reason,
    progress_fields,
    prompt_logprob_fields,
    quote,
    stop_field,
    timing_fields,
    to_json,
    usage_fields,
)
from llamakit.api.openai_chat_options import (
    CalledCustomTool,
    ChatAnnotation,
    ChatAudio,
    ChatAudioOptions,
    ChatModeration,
    ChatModerationOptions,
    ChatPrediction,
    ChatSearchOptions,
    PromptCacheOptions,
)
from llamakit.api.openai_lists import Metadata
from llamakit.api.openai_messages import (
    FunctionDefinition,
    WireFunctionChoice,
    WireMessages,
    WireToolChoice,
    WireTools,
    choose_tools,
    from_tool_call,
    to_messages,
    to_specs,
    to_tools,
)
from llamakit.api.openai_sampling import (
    NumLogprobs,
    SamplingFields,
    check_stream_options,
    to_context,
    to_sampling,
)
from llamakit.api.wire import FIRST, Wire
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import (
    Answer,
    AnswerEvent,
    Choice,
    Done,
    Finish,
    PrefillProgress,
    TextDelta,
    ToolCallDelta,
)

ServiceTier = Literal["auto", "default", "flex", "scale", "priority", "fast"]


class ChatCompletionRequest(SamplingFields):
    """Body of `POST /v1/chat/completions`."""

    messages: WireMessages
    audio: ChatAudioOptions | None = None
    """Refused: models here do not speak."""
    function_call: WireFunctionChoice | None = None
    """Deprecated form of `tool_choice`."""
    functions: Annotated[list[FunctionDefinition], FIRST] | None = None
    """Deprecated form of `tools`."""
    logprobs: bool | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Deprecated name of `max_completion_tokens`."""
    metadata: Metadata | None = None
    modalities: Annotated[list[Literal["text", "audio"]], FIRST] | None = None
    moderation: ChatModerationOptions | None = None
    """Refused: answers are not moderated by this route."""
    parallel_tool_calls: bool | None = None
    prediction: ChatPrediction | None = None
    """A hint, set aside: prompt lookup finds repeated text by itself."""
    prompt_cache_key: str | None = None
    """Accepted; prefixes are found without a key."""
    prompt_cache_options: PromptCacheOptions | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """A hint, set aside: Llama models do not reason apart from their answer."""
    safety_identifier: str | None = None
    service_tier: ServiceTier | None = None
    store: bool | None = None
    """Keep the answer, so that it can be listed and read; false by default."""
    tool_choice: WireToolChoice | None = None
    tools: WireTools | None = None
    top_logprobs: NumLogprobs | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    web_search_options: ChatSearchOptions | None = None
    """Refused: this route does not search."""

    # Extensions.
    add_generation_prompt: bool | None = None
    """Open the assistant's turn after the last message; true by default."""
    continue_final_message: bool | None = None
    """Go on writing the last message, which is the assistant's."""
    echo: bool | None = None
    """Begin the answer with the text that `continue_final_message` continues."""


class ResponseFunction(Wire):
    """A function's name and arguments."""

    name: str | None = None
    arguments: str | None = None


class ResponseToolCall(Wire):
    """A call of a function, or of a free-form tool; `index` in streams only."""

    index: int | None = None
    id: str | None = None
    type: Literal["function", "custom"] | None = None
    function: ResponseFunction | None = None
    custom: CalledCustomTool | None = None


class ResponseMessage(Wire):
    """What the model answered."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    annotations: list[ChatAnnotation] | None = None
    audio: ChatAudio | None = None
    tool_calls: list[ResponseToolCall] | None = None
    function_call: ResponseFunction | None = None


class ResponseChoice(Wire):
    """One alternative of an answer."""

    index: int
    message: ResponseMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
    stop_reason: str | int | None = None
    """The stop string or token id that ended it, if one did (extension, with the name that vLLM gave it)."""


class ChatCompletion(Wire):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ResponseChoice]
    usage: CompletionUsage | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    metadata: Metadata | None = None
    """Of a kept answer."""
    moderation: ChatModeration | None = None
    """Never there: this route moderates no answers."""
    timings: WireTimings | None = None
    prompt_logprobs: list[dict[str, Any] | None] | None = None


class ResponseDelta(Wire):
    """What a chunk adds to a choice."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: str | None = None
    audio: ChatAudio | None = None
    tool_calls: list[ResponseToolCall] | None = None
    function_call: ResponseFunction | None = None


class ChunkChoice(Wire):
    """A choice in a chunk."""

    index: int
    delta: ResponseDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter", "function_call"] | None
    stop_reason: str | int | None = None
    """The stop string or token id that ended it, if one did (extension, with the name that vLLM gave it)."""


class ChatCompletionChunk(Wire):
    """A piece of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    moderation: ChatModeration | None = None
    """Never there: this route moderates no answers."""
    obfuscation: str | None = None
    """Never there: `stream_options.include_obfuscation` is set aside."""
    timings: WireTimings | None = None
    prompt_progress: PromptProgress | None = None


def to_request(wire: ChatCompletionRequest, *, request_id: str, salt: str = "") -> ChatRequest:
    """The house's request; raises `InvalidRequest` naming the field."""
    _refuse_unsupported(wire)
    check_stream_options(wire)
    tools, choice = choose_tools(wire.tool_choice, to_tools(wire.tools))
    if wire.functions is not None:
        tools, choice = choose_tools(wire.function_call, to_specs(wire.functions, "functions"), "function_call")
    messages = to_messages(wire.messages)
    add_prompt, go_on = _ending(wire, messages[-1].role)
    if wire.top_logprobs is not None and not wire.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: true", param="top_logprobs")
    return ChatRequest(
        model=wire.model,
        messages=messages,
        context=to_context(wire, request_id=request_id, salt=salt),
        sampling=to_sampling(
            wire,
            max_tokens=wire.max_tokens if wire.max_completion_tokens is None else wire.max_completion_tokens,
            logprobs=(wire.top_logprobs or 0) if wire.logprobs else None,
            prompt_logprobs=wire.prompt_logprobs,
        ),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=wire.parallel_tool_calls is not False and wire.functions is None,
        add_generation_prompt=add_prompt,
        continue_final_message=go_on,
    )


def set_aside(wire: ChatCompletionRequest) -> tuple[str, ...]:
    """Known fields that ask for something which is accepted and has no effect here."""
    hints = {
        "prediction": wire.prediction is not None,
        "prompt_cache_options": wire.prompt_cache_options is not None,
        "prompt_cache_retention": wire.prompt_cache_retention is not None,
        "reasoning_effort": wire.reasoning_effort not in (None, "none"),
        "service_tier": wire.service_tier not in (None, "auto", "default"),
        "verbosity": wire.verbosity not in (None, "medium"),
    }
    return (*openai_sampling.set_aside(wire), *(name for name, is_asked in hints.items() if is_asked))


def _refuse_unsupported(wire: ChatCompletionRequest) -> None:
    for param, is_asked, instead in (
        ("audio", wire.audio is not None, "models here do not speak; leave it out"),
        ("modalities", wire.modalities not in (None, [], ["text"]), "only ['text'] is supported"),
        ("moderation", wire.moderation is not None, "answers are not moderated by this route; leave it out"),
        ("web_search_options", wire.web_search_options is not None, "this route does not search; leave it out"),
        ("functions", bool(wire.functions and wire.tools), "is the older form of tools; send one of them"),
        ("functions", wire.functions == [], "must hold at least one function, or be left out"),
        ("function_call", bool(wire.function_call and not wire.functions), "needs functions"),
    ):
        if is_asked:
            raise InvalidRequest(f"{param}: {instead}", param=param)
    both = wire.max_tokens is not None and wire.max_completion_tokens is not None
    if both and wire.max_tokens != wire.max_completion_tokens:
        raise InvalidRequest(
            f"max_tokens {wire.max_tokens} and max_completion_tokens {wire.max_completion_tokens} differ; send one",
            param="max_tokens",
        )


def _ending(wire: ChatCompletionRequest, last_role: str) -> tuple[bool, bool]:
    """Whether the assistant's turn is opened, and whether the last message goes on."""
    go_on = bool(wire.continue_final_message)
    if go_on and wire.add_generation_prompt:
        raise InvalidRequest(
            "continue_final_message goes on with the last turn and add_generation_prompt opens a new one; send one",
            param="add_generation_prompt",
        )
    if go_on and last_role != "assistant":
        raise InvalidRequest(
            f"continue_final_message needs a last message of role assistant, got {last_role}",
            param="continue_final_message",
        )
    if wire.echo and not go_on:
        raise InvalidRequest("echo in a chat needs continue_final_message: true", param="echo")
    return not go_on if wire.add_generation_prompt is None else wire.add_generation_prompt, go_on


def echoed_text(wire: ChatCompletionRequest, request: ChatRequest) -> str:
    """What every choice begins with."""
    return request.messages[-1].text if wire.echo else ""


class ChatChunks:
    """Events of one answer -> JSON texts of its chunks; feed with `push`, in order.

    The frame around a piece of text is made once: a token costs one string, and no model is built for it.
    """

    def __init__(self, wire: ChatCompletionRequest, head: AnswerHead, *, echo: str = "") -> None:
        self._base = to_json(head.fields("chat.completion.chunk"))[:-1]
        self._begin = self._base + ',"choices":[{"index":'
        self._with_usage = bool(wire.stream_options and wire.stream_options.include_usage)
        self._end = ',"usage":null}' if self._with_usage else "}"
        self._with_logprobs = bool(wire.logprobs)
        self._as_function = wire.functions is not None
        self._echo = echo
        self._opened: set[int] = set()
        self._called: set[int] = set()
        self._held = ""
        self._started = time.monotonic()

    def push(self, event: AnswerEvent) -> Iterator[str]:
        """The chunks that `event` makes, if any; raises `EngineStopped` for an end that is no answer.

        A choice's last chunk is held until the next event, because the last of all carries the timings.
        """
        match event:
            case TextDelta():
                if event.text or event.logprobs:
                    yield from self._before(event.choice, '""')
                    yield self._chunk(event.choice, f'{{"content":{quote(event.text)}}}', self._logprobs(event))
            case ToolCallDelta():
                yield from self._before(event.choice, "null")
                self._called.add(event.choice)
                yield self._chunk(event.choice, self._call(event), self._logprobs(event))
            case Finish():
                yield from self._before(event.choice, '""')
                reason = self._reason(event)
                self._held = self._chunk(event.choice, "{}", "null", f'"{reason}"{stop_field(event.stop)}')
            case PrefillProgress():
                yield from self._before(0, '""')
                fields = to_json(progress_fields(event, time.monotonic() - self._started))
                yield self._chunk(0, "{}", "null")[:-1] + f',"prompt_progress":{fields}}}'
            case Done():
                yield from self._finish(event)

    def _before(self, choice: int, content: str) -> Iterator[str]:
        """A chunk that was held, and the role, with which every choice begins."""
        if self._held:
            yield self._held
            self._held = ""
        if choice not in self._opened:
            self._opened.add(choice)
            yield self._chunk(choice, f'{{"role":"assistant","content":{content},"refusal":null}}', "null")
            if self._echo:
                yield self._chunk(choice, f'{{"content":{quote(self._echo)}}}', "null")

    def _finish(self, event: Done) -> Iterator[str]:
        timings = to_json(timing_fields(event.usage, event.timings))
        if self._held:
            yield self._held if self._with_usage else f'{self._held[:-1]},"timings":{timings}}}'
            self._held = ""
        if self._with_usage:
            usage = to_json(usage_fields(event.usage))
            yield f'{self._base},"choices":[],"usage":{usage},"timings":{timings}}}'

    def _chunk(self, choice: int, delta: str, logprobs: str, reason: str = "null") -> str:
        return f'{self._begin}{choice},"delta":{delta},"logprobs":{logprobs},"finish_reason":{reason}}}]{self._end}'

    def _logprobs(self, event: TextDelta | ToolCallDelta) -> str:
        if not self._with_logprobs:
            return "null"
        return f'{{"content":{to_json(chat_logprobs(event.logprobs))},"refusal":null}}'

    def _call(self, event: ToolCallDelta) -> str:
        """The first delta of a call carries id and name, each one the index."""
        function = f'"arguments":{quote(event.arguments)}'
        if event.name is not None:
            function = f'"name":{quote(event.name)},{function}'
        if self._as_function:
            return f'{{"function_call":{{{function}}}}}'
        opening = "" if event.id is None else f',"id":{quote(event.id)},"type":"function"'
        return f'{{"tool_calls":[{{"index":{event.index}{opening},"function":{{{function}}}}}]}}'

    def _reason(self, event: Finish) -> str:
        reason = finish_reason(event, called_tools=event.choice in self._called)
        return "function_call" if reason == "tool_calls" and self._as_function else reason


def to_body(wire: ChatCompletionRequest, head: AnswerHead, answer: Answer, *, echo: str = "") -> dict[str, Any]:
    """The body of a whole answer; raises `EngineStopped` for an end that is no answer."""
    body = head.fields("chat.completion")
    body["choices"] = [_choice(wire, index, choice, echo) for index, choice in enumerate(answer.choices)]
    body["usage"] = usage_fields(answer.usage)
    body["timings"] = timing_fields(answer.usage, answer.timings)
    if answer.prompt_logprobs is not None:
        body["prompt_logprobs"] = prompt_logprob_fields(answer.prompt_logprobs)
    return body


def _choice(wire: ChatCompletionRequest, index: int, choice: Choice, echo: str) -> dict[str, Any]:
    calls = choice.message.tool_calls
    text = echo + choice.message.text
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
    reason = finish_reason(Finish(reason=choice.reason), called_tools=bool(calls))
    if calls and wire.functions is not None:
        message["function_call"] = from_tool_call(calls[0])["function"]
        reason = "function_call" if reason == "tool_calls" else reason
    elif calls:
        message["tool_calls"] = [from_tool_call(call) for call in calls]
    logprobs = {"content": chat_logprobs(choice.logprobs), "refusal": None} if wire.logprobs else None
    made = {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason}
    return made if choice.stop is None else made | {"stop_reason": choice.stop}
