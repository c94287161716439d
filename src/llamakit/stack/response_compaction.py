"""A conversation measured in tokens, and made short: what users said is kept, the rest becomes a summary."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Any

from llamakit.api.inference import ChatRequest, Inference, RequestContext, TokenizeRequest
from llamakit.api.openai_response_history import write_compaction
from llamakit.api.openai_response_items import new_item_id
from llamakit.api.openai_responses import CompactRequest, ResponseContext, usage_body
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import AnswerFold, user
from llamakit.stack.response_loop import Chat
from llamakit.stack.response_plan import Planner
from llamakit.storage.ids import RESPONSE

SUMMARISE = (
    "Write a summary of the conversation above for somebody who goes on with it: what was asked, what was found "
    "and decided, names, numbers and open questions. Write the summary only."
)


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
        asked = TokenizeRequest(model=seen.model, messages=seen.messages, tools=seen.offer.specs)
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
        request = ChatRequest(
            model=seen.model,
            messages=(*seen.messages, user(SUMMARISE)),
            context=RequestContext(id=id, salt=salt),
        )
        fold = AnswerFold()
        async with aclosing(chat(request)) as events:
            async for event in events:
                fold.add(event)
        answer = fold.answer()
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
