"""A conversation measured in tokens, and made short: by its own operation, or on the way to an answer.

The operation keeps what users said and makes a summary of the rest. On the way the last turn is kept, and where
the client asks for nothing else, nothing but the summary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

from llamakit.api.inference import AnswerStream, ChatRequest, Inference, RequestContext, TokenizeRequest
from llamakit.api.openai_response_history import instructions, last_turn, write_compaction
from llamakit.api.openai_response_items import new_item_id
from llamakit.api.openai_response_resource import usage_body
from llamakit.api.openai_responses import CompactRequest, ResponseContext
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import Answer, AnswerFold, Message, ToolSpec, user
from llamakit.stack.response_plan import Planner
from llamakit.storage.ids import RESPONSE

SUMMARISE = (
    "Write a summary of the conversation above for somebody who goes on with it: what was asked, what was found "
    "and decided, names, numbers and open questions. Write the summary only."
)

Chat = Callable[[ChatRequest], AnswerStream]


class Compaction:
    """Looks at conversations as a model would."""

    def __init__(self, inference: Inference, planner: Planner) -> None:
        self._inference = inference
        self._planner = planner

    async def count(self, owner: str, wire: ResponseContext) -> dict[str, Any]:
        """Tokens of the input that a request would give its model."""
        seen = await self._planner.look(owner, wire)
        if not seen.messages:
            raise InvalidRequest("input is required: nothing was said yet", param="input")
        asked = TokenizeRequest(model=seen.model, messages=seen.messages, tools=seen.offer.seen())
        tokens = await self._inference.tokenize(asked)
        return {"object": "response.input_tokens", "input_tokens": len(tokens.ids)}

    async def compact(self, owner: str, wire: CompactRequest, salt: str, chat: Chat) -> dict[str, Any]:
        """What users said, and one item that stands for all else."""
        context = ResponseContext(
            model=wire.model,
            input=wire.input,
            instructions=wire.instructions,
            previous_response_id=wire.previous_response_id,
        )
        seen = await self._planner.look(owner, context)
        if not seen.items:
            raise InvalidRequest("input is required: nothing was said yet", param="input")
        id = RESPONSE.new()
        answer = await summary_of(chat, seen.model, seen.messages, RequestContext(id=id, salt=salt))
        said = [item.body for item in seen.items if item.body.get("role") == "user"]
        summary = {
            "id": new_item_id("compaction"),
            "type": "compaction",
            "encrypted_content": write_compaction(answer.text),
        }
        return {
            "id": id,
            "object": "response.compaction",
            "created_at": int(time.time()),
            "output": [*said, summary],
            "usage": usage_body(answer.usage),
        }


async def summary_of(chat: Chat, model: str, messages: Sequence[Message], context: RequestContext) -> Answer:
    """What a model makes of a conversation for somebody who goes on with it."""
    request = ChatRequest(model=model, messages=(*messages, user(SUMMARISE)), context=context)
    fold = AnswerFold()
    async with aclosing(chat(request)) as events:
        async for event in events:
            fold.add(event)
    return fold.answer()


async def is_too_long(
    inference: Inference, model: str, messages: Sequence[Message], tools: Sequence[ToolSpec], threshold: int | None
) -> bool:
    """Whether a prompt has reached the threshold of tokens, and there is something before its last turn."""
    past = len(messages[: last_turn(messages)]) - len(instructions(messages[: last_turn(messages)]))
    if threshold is None or past <= 0:
        return False
    asked = TokenizeRequest(model=model, messages=tuple(messages), tools=tuple(tools))
    return len((await inference.tokenize(asked)).ids) >= threshold
