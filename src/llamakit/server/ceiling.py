"""A chat whose `max_tokens` is a ceiling: what the context does not hold is not asked for.

OpenAI's clients mean the number and are told when it cannot be. In the other dialects it is required, or has a
large default, and an answer that ends where the context ends is what their clients expect.
"""

from __future__ import annotations

import dataclasses
from contextlib import aclosing

from llamakit.api.inference import AnswerStream, ChatRequest, CompletionRequest, Inference
from llamakit.core.errors import PromptTooLong


async def answer_within(inference: Inference, request: ChatRequest | CompletionRequest) -> AnswerStream:
    """The events of the answer, asked for again without `max_tokens` where that alone was too much."""
    has_begun = False
    try:
        async with aclosing(_ask(inference, request)) as events:
            async for event in events:
                has_begun = True
                yield event
        return
    except PromptTooLong as fault:
        if has_begun or fault.param != "max_tokens":
            raise
    rest = {name: value for name, value in request.sampling.items() if name != "max_tokens"}
    async with aclosing(_ask(inference, dataclasses.replace(request, sampling=rest))) as events:
        async for event in events:
            yield event


def _ask(inference: Inference, request: ChatRequest | CompletionRequest) -> AnswerStream:
    return inference.chat(request) if isinstance(request, ChatRequest) else inference.complete(request)
