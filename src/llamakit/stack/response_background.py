"""Responses that go on without their client: a row and a job from the beginning, events written ahead.

After a kill the job is taken up by the next process: the response is computed again from its seed, and what
readers have already is passed over. Where that cannot be done the response is failed, with the reason.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from llamakit.api.hosted_tools import HostedResult
from llamakit.api.inference import Inference
from llamakit.api.openai_hosted_tools import check_keepable
from llamakit.api.openai_response_calls import MadeCall
from llamakit.api.openai_responses import ResponseRequest
from llamakit.core.errors import Conflict, EngineStopped, InvalidRequest, NotFound, Overloaded, StorageError
from llamakit.core.faults import fault
from llamakit.stack.background import KEY_ENDED, Background
from llamakit.stack.conversations import Conversations
from llamakit.stack.items import Item
from llamakit.stack.response_compaction import Chat
from llamakit.stack.response_events import Event, EventLog, Replay, Watchers, number, partial_output
from llamakit.stack.response_loop import ResponseLoop, moderator_of
from llamakit.stack.response_moderation import Judge
from llamakit.stack.response_plan import Asked, Plan, Planner, new_seed
from llamakit.stack.response_rows import RUNNING, ResponseRows
from llamakit.stack.storage import Storage
from llamakit.storage.jobs import JobContext
from llamakit.storage.sql import Row, Statement

log = logging.getLogger(__name__)

JOB_KIND = "response"
MAX_ATTEMPTS = 3
"""Times a response is begun before it counts as failed."""
POLL_S = 0.25
"""How often a stream looks for what another process wrote."""
INTERRUPTED = "Error: the server was stopped while this ran; whether it took effect is not known."

Failure = Callable[[Exception, str], tuple[str, str]]


class BackgroundResponses:
    """The background responses of one server."""

    def __init__(
        self,
        inference: Inference,
        storage: Storage,
        background: Background,
        planner: Planner,
        failure: Failure,
        judge: Judge,
    ) -> None:
        self._inference = inference
        self._storage = storage
        self._background = background
        self._planner = planner
        self._failure = failure
        self._judge = judge
        self._conversations = Conversations(storage)
        self._watchers = Watchers()
        self.chat: Callable[[str], Chat] = lambda _: inference.chat
        """Who is asked on behalf of an owner; a server puts its meters here."""
        background.handle(JOB_KIND, self._work, self._refused)

    async def enqueue(self, owner: str, plan: Plan) -> dict[str, Any]:
        """Keep the request and return; once this returned the response comes to an end, whatever happens."""
        check_keepable(plan.asked.wire.tools or ())
        queue = await self._background.queue()
        database = await self._storage.database()
        rows = ResponseRows(database, owner)
        job, enqueueing = queue.enqueueing(owner, JOB_KIND, {"response": plan.id})
        await database.run(
            rows.inserting(plan.resource, plan.created_ns, job=job, request=_written(plan.asked)),
            *rows.keeping(plan.inputs, response=plan.id, conversation=None),
            enqueueing,
        )
        queue.announce()
        return plan.resource

    async def tail(self, owner: str, id: str, after: int) -> AsyncGenerator[Event, None]:
        """The events after a number, those there are and those to come, until the response has ended."""
        rows = await self._rows(owner)
        await self._background_row(rows, id, "streamed again")
        while True:
            try:
                has_ended = (await rows.row(id))["status"] not in RUNNING
            except NotFound:
                return
            for event in await rows.events(id, after):
                after = event["sequence_number"]
                yield event
            if has_ended:
                return
            await self._watchers.wait(id, POLL_S)

    async def check_streamable(self, owner: str, id: str) -> None:
        """Raise where `tail` would."""
        await self._background_row(await self._rows(owner), id, "streamed again")

    async def cancel(self, owner: str, id: str) -> dict[str, Any]:
        """Stop it; what had been written stays. One that has ended already is answered as it is."""
        rows = await self._rows(owner)
        row = await self._background_row(rows, id, "cancelled")
        if row["status"] in RUNNING:
            resource = json.loads(row["body"]) | {"status": "cancelled"}
            resource["output"] = partial_output(await rows.events(id))
            items = [Item(body=body, side="output") for body in resource["output"]]
            try:
                await (await self._storage.database()).run(
                    rows.ending(resource), *rows.keeping(items, response=id, conversation=None)
                )
            except Conflict:
                log.debug("response %s ended while it was being cancelled", id)
            await self.stop(owner, row)
        return await rows.resource(await rows.row(id))

    async def stop(self, owner: str, row: Row) -> None:
        """End the job of a row, if it has one that still runs."""
        if row["job"] is not None and row["status"] in RUNNING:
            await (await self._background.queue()).cancel(owner, row["job"])
        self._watchers.notify(row["id"])

    async def _work(self, context: JobContext) -> None:
        """Do the job: the response is at an end when this returns, or it is another's."""
        id, owner = context.job.payload["response"], context.job.owner
        rows = await self._rows(owner)
        try:
            row = await rows.row(id)
        except NotFound:
            return
        if row["status"] not in RUNNING:
            return
        work = _Work(self._storage, rows, context, row, self._watchers)
        try:
            if context.job.attempts > MAX_ATTEMPTS:
                raise EngineStopped(f"given up after {MAX_ATTEMPTS} attempts, each of which ended its process")
            await self._make(work, row)
        except Conflict:
            raise
        except Exception as failed:
            if isinstance(failed, Overloaded | StorageError | EngineStopped) and context.job.attempts < MAX_ATTEMPTS:
                raise
            await work.fail(*self._failure(failed, id))

    async def _refused(self, context: JobContext, reason: str) -> None:
        """End a response whose key has ended; what had been written stays."""
        rows = await self._rows(context.job.owner)
        try:
            row = await rows.row(context.job.payload["response"])
        except NotFound:
            return
        if row["status"] in RUNNING:
            await _Work(self._storage, rows, context, row, self._watchers).fail(KEY_ENDED, reason)

    async def _make(self, work: _Work, row: Row) -> None:
        owner, id = work.context.job.owner, row["id"]
        inputs = await work.rows.inputs(id)
        asked = _read(row["request"])
        plan = await self._planner.plan(owner, asked, id=id, created_ns=row["created_ns"], inputs=inputs)
        kept = await work.rows.events(id)
        replay = Replay(kept)
        work.log = EventLog(work.flush, first=len(kept))
        loop = ResponseLoop(
            plan,
            self._inference,
            self.chat(owner),
            run_tool=work.run_tool,
            is_queued=True,
            moderator=moderator_of(self._judge, owner, plan),
        )
        async with aclosing(loop.events()) as events:
            async for event in events:
                new = replay.new_part(event)
                if new is not None:
                    await work.log.write(new)
        await loop.conclude()
        last = list(loop.writer.finish(int(time.time())))
        conversation = None if plan.resource["conversation"] is None else plan.resource["conversation"]["id"]
        joining = (
            []
            if conversation is None
            else [self._conversations.touching(owner, conversation), work.rows.joining(id, conversation)]
        )
        await work.end(plan.resource, last, loop.outputs(), conversation, joining)

    async def _rows(self, owner: str) -> ResponseRows:
        return ResponseRows(await self._storage.database(), owner)

    async def _background_row(self, rows: ResponseRows, id: str, what: str) -> Row:
        row = await rows.row(id)
        if not row["is_background"]:
            raise InvalidRequest(
                f"only a response made with background: true can be {what}; this one has its end already",
                param="response_id",
            )
        return row


class _Work:
    """What one attempt writes. Every write demands that the job is still its own."""

    def __init__(self, storage: Storage, rows: ResponseRows, context: JobContext, row: Row, watchers: Watchers) -> None:
        self._storage = storage
        self.rows = rows
        self.context = context
        self._row = row
        self._watchers = watchers
        self._tools: dict[str, Any] = dict(context.progress or {})
        self.log = EventLog(self.flush)

    async def flush(self, events: Sequence[Event]) -> None:
        """Keep events; the first ones also tell that the response is in progress."""
        await self._commit([self.rows.logging(self._row["id"], events), self._running()])

    async def run_tool(self, made: MadeCall, call: Callable[[], Awaitable[HostedResult]]) -> HostedResult:
        """Run a tool once: what it gave is kept, and one that was cut off is not tried a second time."""
        key = str(made.position)
        if key in self._tools:
            kept = self._tools[key]
            return HostedResult(output=INTERRUPTED, is_failed=True) if kept is None else HostedResult(**kept)
        await self._save(key, None)
        result = await call()
        await self._save(key, asdict(result))
        return result

    async def end(
        self,
        resource: dict[str, Any],
        last: Sequence[Event],
        items: Sequence[Item],
        conversation: str | None,
        joining: Sequence[Statement],
    ) -> None:
        """Commit the end of the response with its last events."""
        for event in last:
            self.log.append(event)
        id = self._row["id"]
        fault("responses.before_end")
        await self._commit(
            [
                self.rows.ending(resource),
                self.rows.logging(id, self.log.take()),
                *joining,
                *self.rows.keeping(items, response=id, conversation=conversation),
            ]
        )

    async def fail(self, code: str, message: str) -> None:
        """Commit the end of a response that failed; what had been written stays."""
        id = self._row["id"]
        kept = await self.rows.events(id)
        output = partial_output(kept)
        body = json.loads(self._row["body"])
        resource = body | {"status": "failed", "error": {"code": code, "message": message}, "output": output}
        last = number({"type": "response.failed", "response": resource}, len(kept))
        items = [Item(body=item, side="output") for item in output]
        await self._commit(
            [
                self.rows.ending(resource),
                self.rows.logging(id, [last]),
                *self.rows.keeping(items, response=id, conversation=None),
            ]
        )

    async def _save(self, key: str, result: dict[str, Any] | None) -> None:
        self._tools[key] = result
        await self.context.save(self._tools)

    async def _commit(self, statements: Sequence[Statement]) -> None:
        database = await self._storage.database()
        await database.run(self.context.saving(self._tools), *statements)
        self._watchers.notify(self._row["id"])

    def _running(self) -> Statement:
        return self.rows.responses.updating(self._row["id"], {"status": "in_progress"}, when={"status": RUNNING})


def _written(asked: Asked) -> str:
    """A request as text. It gets a seed where it has none, so that it can be computed twice.

    Credentials of tools are part of it, since the work may go on in another process; it is removed at the end.
    """
    wire = asked.wire
    if wire.seed is None:
        wire = wire.model_copy(update={"seed": new_seed()})
    fields = wire.model_dump(mode="json", exclude_none=True, by_alias=True, exclude={"input"})
    return json.dumps({"wire": fields, "salt": asked.salt, "prompt": asked.prompt})


def _read(text: str) -> Asked:
    kept = json.loads(text)
    wire = ResponseRequest.model_validate(kept["wire"])
    assert wire.model is not None, "asking gave the request its model"
    return Asked(wire=wire, model=wire.model, salt=kept["salt"], prompt=kept["prompt"])
