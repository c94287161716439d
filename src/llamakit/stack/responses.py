"""Responses: made for a client that waits, kept, gone on from, listed, read and deleted.

What is acknowledged is on the disk: the last event of a stream, and a whole answer, go out after the commit.
A response that nobody waits for any more leaves nothing. Those that go on without a client are next door, in
`response_background.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

from llamakit.api.hosted_tools import HostedKind, HostedTools
from llamakit.api.inference import Inference
from llamakit.api.openai_lists import PageQuery, list_body
from llamakit.api.openai_responses import ResponseRequest, check
from llamakit.api.openai_stored_chats import page_of
from llamakit.core.errors import InvalidRequest, LlamakitError, Overloaded
from llamakit.stack.background import Background
from llamakit.stack.conversations import Conversations
from llamakit.stack.input_files import InputFiles
from llamakit.stack.response_background import BackgroundResponses
from llamakit.stack.response_compaction import Chat, Compaction
from llamakit.stack.response_events import Event, number
from llamakit.stack.response_loop import ResponseLoop, moderator_of
from llamakit.stack.response_moderation import Judge
from llamakit.stack.response_plan import Plan, Planner
from llamakit.stack.response_rows import ResponseRows
from llamakit.stack.storage import Storage
from llamakit.storage.ids import RESPONSE
from llamakit.storage.sql import Row, Statement
from llamakit.storage.tables import stamp

log = logging.getLogger(__name__)


class Responses:
    """The responses of one server."""

    def __init__(
        self,
        inference: Inference,
        storage: Storage,
        background: Background,
        tools: Mapping[HostedKind, HostedTools],
        default_model: Callable[[str | None], Awaitable[str]],
        input_files: InputFiles,
        judge: Judge,
    ) -> None:
        self._inference = inference
        self._storage = storage
        self._conversations = Conversations(storage)
        self._judge = judge
        self._planner = Planner(inference, storage, tools, default_model, input_files)
        self.background = BackgroundResponses(inference, storage, background, self._planner, failure_of, judge)
        self.compaction = Compaction(inference, self._planner)

    async def prepare(self, owner: str, wire: ResponseRequest, salt: str) -> Plan:
        """Everything that is known before the model is asked; raises `InvalidRequest` and `NotFound`."""
        check(wire)
        asked = await self._planner.ask(owner, wire, salt)
        return await self._planner.plan(owner, asked, id=RESPONSE.new(), created_ns=stamp())

    async def stream(self, owner: str, plan: Plan, chat: Chat) -> AsyncGenerator[Event, None]:
        """The numbered events; what fails before the first is raised, what fails later is the last event."""
        loop = self._loop(owner, plan, chat)
        sent = 0
        try:
            async with aclosing(loop.events()) as events:
                async for event in events:
                    yield number(event, sent)
                    sent += 1
            await loop.conclude()
            last = list(loop.writer.finish(int(time.time())))
            await self._keep(owner, plan, loop)
        except Exception as fault:
            if not sent:
                raise
            last = list(loop.writer.fail(*failure_of(fault, plan.id)))
            await self._keep_failed(owner, plan, loop)
        for event in last:
            yield number(event, sent)
            sent += 1

    async def whole(
        self, owner: str, plan: Plan, chat: Chat, deferred: list[Statement] | None = None
    ) -> dict[str, Any]:
        """The response at its end; what fails is raised. What it keeps is put into `deferred` where there is one."""
        loop = self._loop(owner, plan, chat)
        async with aclosing(loop.events()) as events:
            async for _ in events:
                pass
        await loop.conclude()
        for _ in loop.writer.finish(int(time.time())):
            pass
        if deferred is None:
            await self._keep(owner, plan, loop)
        else:
            deferred += await self._keeping(owner, plan, loop)
        return plan.resource

    def _loop(self, owner: str, plan: Plan, chat: Chat) -> ResponseLoop:
        return ResponseLoop(plan, self._inference, chat, moderator=moderator_of(self._judge, owner, plan))

    async def get(self, owner: str, id: str) -> dict[str, Any]:
        """A kept response, or `NotFound`."""
        rows = await self._rows(owner)
        return await rows.resource(await rows.row(id))

    async def list(self, owner: str, page: PageQuery, *, model: str | None) -> dict[str, Any]:
        """A page of kept responses, of one model if asked."""
        rows = await self._rows(owner)
        where = {} if model is None else {"model": model}
        found = await rows.responses.page(where=where, order=page.order, limit=page.limit, after=page.after)
        return list_body([await self._listed(rows, row) for row in found.rows], has_more=found.has_more)

    async def _listed(self, rows: ResponseRows, row: Row) -> dict[str, Any]:
        """A response with the items that it brought, which readers of a list want to see."""
        return await rows.resource(row) | {"input": [item.body for item in await rows.inputs(row["id"])]}

    async def input_items(self, owner: str, id: str, page: PageQuery) -> dict[str, Any]:
        """A page of what the model was given: the items of the responses before, and the response's own inputs."""
        rows = await self._rows(owner)
        row = await rows.row(id)
        past = await rows.history(await rows.chain(row["previous"])) if row["previous"] is not None else []
        items = [item.body for item in (*past, *await rows.inputs(id))]
        shown, has_more = page_of(items if page.order == "asc" else items[::-1], page.after, page.limit)
        return list_body(shown, has_more=has_more)

    async def delete(self, owner: str, id: str) -> dict[str, Any]:
        """Delete a response; one that still runs is stopped. Items of a conversation stay there."""
        rows = await self._rows(owner)
        row = await rows.row(id)
        await (await self._storage.database()).run(*rows.removing(id))
        await self.background.stop(owner, row)
        return {"id": id, "object": "response", "deleted": True}

    async def _keep(self, owner: str, plan: Plan, loop: ResponseLoop) -> None:
        """Commit the response and what its conversation gains, all or nothing."""
        if statements := await self._keeping(owner, plan, loop):
            await (await self._storage.database()).run(*statements)

    async def _keeping(self, owner: str, plan: Plan, loop: ResponseLoop) -> list[Statement]:
        """The statements that keep the response and what its conversation gains; none where neither is wanted."""
        resource = plan.resource
        conversation = None if resource["conversation"] is None else resource["conversation"]["id"]
        if not resource["store"] and conversation is None:
            return []
        database = await self._storage.database()
        rows = ResponseRows(database, owner)
        kept = plan.id if resource["store"] else None
        statements = [] if conversation is None else [self._conversations.touching(owner, conversation)]
        if kept is not None:
            statements.append(rows.inserting(resource, plan.created_ns))
        items = (*plan.inputs, *loop.outputs())
        return [*statements, *rows.keeping(items, response=kept, conversation=conversation)]

    async def _keep_failed(self, owner: str, plan: Plan, loop: ResponseLoop) -> None:
        """Keep a response that failed in the middle, outside of its conversation; its reader is told in any case."""
        if not plan.resource["store"]:
            return
        try:
            database = await self._storage.database()
            rows = ResponseRows(database, owner)
            items = rows.keeping((*plan.inputs, *loop.outputs()), response=plan.id, conversation=None)
            await database.run(rows.inserting(plan.resource, plan.created_ns), *items)
        except LlamakitError as fault:
            log.warning("response %s failed and could not be kept: %s", plan.id, fault)

    async def _rows(self, owner: str) -> ResponseRows:
        return ResponseRows(await self._storage.database(), owner)


def failure_of(fault: Exception, id: str) -> tuple[str, str]:
    """Code and message of a response's error; our own bugs are logged and tell nothing of the inside."""
    if not isinstance(fault, LlamakitError):
        log.error("response %s failed by a bug", id, exc_info=fault)
        return "server_error", f"internal error; the server's log has it under {id}"
    match fault:
        case InvalidRequest():
            code = "invalid_prompt"
        case Overloaded():
            code = "rate_limit_exceeded"
        case _:
            code = "server_error"
    return code, str(fault)
