"""What the echo provider says: replies cut by length and stops, tool calls, logprobs, and its byte tokens."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llamakit.api.inference import ChatRequest
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import (
    AnswerEvent,
    Finish,
    FinishReason,
    Message,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolSpec,
)
from llamakit.core.sampling import Constraint, SamplingParams
from llamakit.providers.inline.inference.schema_example import example_of

SPECIALS = {256: "<|begin_of_text|>", 257: "<|end_of_text|>", 258: "<|eot_id|>"}
BOS, EOS, EOT = SPECIALS
OWN_LOGPROB, STEP = -0.125, -1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What one choice will say, decided before the first event."""

    ids: bytes
    reason: FinishReason
    calls: tuple[tuple[str, str], ...] = ()
    stop: str | int | None = None


def tools_to_call(request: ChatRequest) -> tuple[tuple[str, str], ...]:
    """Names and arguments of the tools to call."""
    last = request.messages[-1]
    match request.tool_choice.mode:
        case "none":
            return ()
        case "named":
            chosen = [tool for tool in request.tools if tool.name == request.tool_choice.name]
        case "required":
            chosen = [tool for tool in request.tools if tool.name in last.text] or list(request.tools[:1])
        case "auto":
            chosen = [tool for tool in request.tools if last.role == "user" and tool.name in last.text]
    if not request.parallel_tool_calls:
        chosen = chosen[:1]
    return tuple((tool.name, json.dumps(example_of(tool.parameters or {"type": "object"}))) for tool in chosen)


def constrained(constraint: Constraint | None, text: str) -> str:
    """`text`, or what the constraint leaves of it; raises `InvalidRequest` where that needs a model."""
    if constraint is None:
        return text
    match constraint.kind:
        case "json_object":
            return json.dumps({"echo": text}, ensure_ascii=False)
        case "json_schema":
            return json.dumps(example_of(json.loads(constraint.source)), ensure_ascii=False)
        case "choice":
            return json.loads(constraint.source)[0]
    raise InvalidRequest(f"the echo provider cannot follow a {constraint.kind}", param="response_format")


def cut(text: str, sampling: SamplingParams, room: int) -> Reply:
    """The text cut by length and stops; kept going where its end is not to count."""
    limit = room if sampling.max_tokens is None else sampling.max_tokens
    goes_on = limit if sampling.ignore_eos else min(limit, sampling.min_tokens)
    ids = text.encode()
    while len(ids) < goes_on:
        ids += ids or b" "
    ids = ids[:limit]
    ends: list[tuple[int, int, str | int]] = []
    for stop in sampling.stop:
        at = ids.find(stop.encode(), max(0, sampling.min_tokens - len(stop.encode())))
        if at >= 0:
            ends.append((at, at + len(stop.encode()), stop))
    for token in sampling.stop_ids:
        at = ids.find(bytes([token]), sampling.min_tokens) if token < 256 else -1
        if at >= 0:
            ends.append((at, at + 1, token))
    if ends:
        before, after, stop = min(ends)
        return Reply(ids=ids[: after if sampling.include_stop else before], reason="stop", stop=stop)
    is_cut = len(ids) == limit and (sampling.ignore_eos or len(text.encode()) > limit or limit == 0)
    return Reply(ids=ids, reason="length" if is_cut else "stop")


def rounds(reply: Reply, sampling: SamplingParams, request_id: str) -> Iterator[list[AnswerEvent]]:
    """Events of all choices, a character of each in turn."""
    for index, (name, arguments) in enumerate(reply.calls):
        for choice in range(sampling.n):
            call_id = f"call_{request_id[-16:]}_{choice}_{index}"
            yield [ToolCallDelta(index=index, id=call_id, name=name, choice=choice)]
        for piece in arguments:
            yield [ToolCallDelta(index=index, arguments=piece, choice=choice) for choice in range(sampling.n)]
    text = reply.ids.decode(errors="replace")
    for char in text:
        logprobs = () if sampling.logprobs is None else tuple(logprob_of(t, sampling.logprobs) for t in char.encode())
        yield [TextDelta(text=char, choice=choice, logprobs=logprobs) for choice in range(sampling.n)]
    yield [Finish(reason=reply.reason, choice=choice, stop=reply.stop) for choice in range(sampling.n)]


def cost(reply: Reply) -> int:
    """Tokens of one choice."""
    return len(reply.ids) + sum(len(arguments) + 1 for _, arguments in reply.calls)


def logprob_of(token: int, num_top: int) -> TokenLogprob:
    """The token is always the likeliest; its neighbours follow."""
    data = bytes([token]) if token < 256 else b""
    text = SPECIALS.get(token) or data.decode(errors="replace")
    others = ((token + step) % 256 for step in range(1, num_top))
    top = [TokenLogprob(id=token, token=text, bytes=data, logprob=OWN_LOGPROB)] if num_top else []
    for rank, other in enumerate(others, 1):
        piece = bytes([other])
        logprob = OWN_LOGPROB + rank * STEP
        top.append(TokenLogprob(id=other, token=piece.decode(errors="replace"), bytes=piece, logprob=logprob))
    return TokenLogprob(id=token, token=text, bytes=data, logprob=OWN_LOGPROB, top=tuple(top))


def prompt_logprobs_of(prompt: tuple[int, ...], num_top: int | None) -> tuple[TokenLogprob | None, ...] | None:
    """Logprobs of a prompt; its first token follows nothing and has none."""
    if num_top is None:
        return None
    return (None, *(logprob_of(token, num_top) for token in prompt[1:]))


def render(messages: Sequence[Message], tools: Sequence[ToolSpec], *, opens: bool) -> tuple[int, ...]:
    """A chat format: every turn is `role:text` and an end token."""
    ids: list[int] = [BOS]
    for tool in tools:
        ids += tool.name.encode()
    for message in messages:
        ids += f"{message.role}:{message.text}".encode()
        ids.append(EOT)
    return tuple(ids + list(b"assistant:")) if opens else tuple(ids)


def decode(ids: Sequence[int], *, names: bool = False) -> str:
    """Bytes as text; special tokens by name, or left out."""
    pieces = (bytes([token]) if token < 256 else SPECIALS[token].encode() if names else b"" for token in ids)
    return b"".join(pieces).decode(errors="replace")


def vector_of(ids: Sequence[int], size: int) -> array[float]:
    """A vector of unit length that depends on the ids alone."""
    sums = [0.0] * size
    for position, token in enumerate(ids):
        sums[(token * 31 + position) % size] += 1.0 + token / 256
    length = sum(value * value for value in sums) ** 0.5 or 1.0
    return array("f", [value / length for value in sums])
