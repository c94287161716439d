"""Moderations: texts judged by a shield, or by a served guard model, and told in OpenAI's words."""

from __future__ import annotations

import asyncio
from typing import Any

from llamakit.api.ids import new_id
from llamakit.api.moderations import LATEST, WireModerationRequest, result_body, to_texts
from llamakit.core.errors import InvalidRequest, NotFound
from llamakit.core.messages import user
from llamakit.safety.shields import Violation
from llamakit.stack.shields import ShieldBook

AT_ONCE = 8
"""Texts of one request that are with a shield at a time."""


class Moderations:
    """The moderations of one server."""

    def __init__(self, shields: ShieldBook) -> None:
        self._shields = shields

    async def create(self, owner: str, wire: WireModerationRequest) -> dict[str, Any]:
        """A result per input. A shield that cannot judge is an error, never a clean result."""
        texts = to_texts(wire)
        judge = await self._judge(owner, wire.model)
        room = asyncio.Semaphore(AT_ONCE)

        async def one(text: str) -> dict[str, Any]:
            async with room:
                return _result(await self._checked(owner, judge, text))

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(text)) for text in texts]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return {"id": new_id("modr"), "model": judge, "results": [task.result() for task in tasks]}

    async def _judge(self, owner: str, asked: str | None) -> str:
        """The shield or model meant."""
        if asked is not None and asked not in LATEST:
            return asked
        if self._shields.default is not None:
            return self._shields.default
        mine = await self._shields.list(owner)
        if not mine:
            raise InvalidRequest(
                "nothing judges here: name a served guard model as model, such as llama-guard3:1b, register a shield "
                "(POST /v1/shields), or give the server's distribution one",
                param="model",
            )
        return mine[0]["identifier"]

    async def _checked(self, owner: str, judge: str, text: str) -> Violation | None:
        messages = [user(text)]
        try:
            await self._shields.get(owner, judge)
        except NotFound:
            return await self._shields.run_model(owner, judge, messages)
        return await self._shields.run(owner, judge, messages)


def _result(violation: Violation | None) -> dict[str, Any]:
    if violation is None:
        return result_body((), is_flagged=False, user_message=None, metadata={})
    return result_body(
        violation.categories, is_flagged=True, user_message=violation.user_message, metadata=violation.metadata
    )
