"""Batches: files of requests that are answered in the background, each line once.

A batch is a row and a job. What became of a line is committed before the next takes its place, in one commit with
whatever its answer keeps (a stored chat or response), so a process that takes the job up after a kill goes on behind
the last answered line and nothing is kept twice; the files are made of those rows at the end, in one commit with the
end itself. Knows no endpoint: who answers a line is passed in.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from llamakit.api.batches import WireBatchRequest, new_batch, usage_of
from llamakit.api.openai_lists import PageQuery, list_body
from llamakit.core.errors import Conflict, EngineStopped, InvalidRequest, NotFound, Overloaded, StorageError
from llamakit.core.faults import fault
from llamakit.stack.background import KEY_ENDED, Background
from llamakit.stack.batch_input import MAX_FILE_BYTES, Line, check_input, lines
from llamakit.stack.batch_rows import LINE, RUNNING, BatchRows, Result
from llamakit.stack.files import Files
from llamakit.stack.storage import Storage
from llamakit.storage.ids import BATCH
from llamakit.storage.jobs import JobContext
from llamakit.storage.sql import Row, Statement

log = logging.getLogger(__name__)

JOB_KIND = "batch"
AT_ONCE = 16
"""Lines of one batch in work at a time."""
AT_ONCE_ALTOGETHER = 32
"""Lines of all batches of this process in work at a time."""
MAX_ATTEMPTS = 3
"""Times a batch is begun that fails by a bug of ours."""
MAX_FRUITLESS = 10
"""Attempts in a row that may end their process without a single line answered."""
MAX_TRIES = 6
"""Times a line is tried while the server is too busy for it."""
MAX_OUTPUT_BYTES = 16 * MAX_FILE_BYTES
POLL_S = 0.5
"""How often a running batch looks whether it was cancelled, or its time is over."""
BUSY = (429, 503)
_UNFINISHED = {
    "expired": ("batch_expired", "This request was not answered before the completion window of its batch was over."),
    "cancelled": ("batch_cancelled", "This request was not answered before its batch was cancelled."),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Asker:
    """For whom a line is answered."""

    owner: str
    salt: str
    request_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """What the endpoint said."""

    status: int
    body: Any
    ignored: tuple[str, ...] = ()
    """Paths of request fields that were set aside."""
    kept: tuple[Statement, ...] = ()
    """What is kept with the answer; whoever keeps the answer commits it."""
    refused: Callable[[Exception], Answered] | None = None
    """The answer in place of this one where that fails."""


AnswerLine = Callable[[str, Mapping[str, Any], Asker], Awaitable[Answered]]
"""Endpoint, body and asker to the answer; errors are answers, as over HTTP."""


class Batches:
    """The batches of one server."""

    def __init__(
        self, storage: Storage, background: Background, files: Files, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._storage = storage
        self._background = background
        self._files = files
        self._clock = clock
        self._room = asyncio.Semaphore(AT_ONCE_ALTOGETHER)
        self._answer: AnswerLine | None = None
        self._changed: dict[str, asyncio.Event] = {}

    def answer_with(self, answer: AnswerLine) -> None:
        """Let `answer` do the lines; from then on this process works on batches."""
        self._answer = answer
        self._background.handle(JOB_KIND, self._work, self._refused)

    async def create(self, owner: str, salt: str, wire: WireBatchRequest) -> dict[str, Any]:
        """A batch; once this returned it comes to an end, whatever happens."""
        file = await self._files.get(owner, wire.input_file_id)
        if file["purpose"] != "batch":
            raise InvalidRequest(
                f"input_file_id must be a file with purpose 'batch', this one has {file['purpose']!r}",
                param="input_file_id",
            )
        if file["bytes"] > MAX_FILE_BYTES:
            raise InvalidRequest(
                f"the input file has {file['bytes']} bytes, at most {MAX_FILE_BYTES}; split it", param="input_file_id"
            )
        body = new_batch(BATCH.new(), wire, created_at=int(self._clock()))
        queue = await self._background.queue()
        rows = await self._rows(owner)
        job, enqueueing = queue.enqueueing(owner, JOB_KIND, {"batch": body["id"]})
        expiry_s = None if wire.output_expires_after is None else wire.output_expires_after.seconds
        row = {"job": job, "salt": salt, "request_key": wire.idempotency_key, "output_expiry_s": expiry_s}
        try:
            await (await self._storage.database()).run(rows.inserting(body, row), enqueueing)
        except Conflict:
            if wire.idempotency_key is None:
                raise
            return await self._made_before(rows, body, wire)
        queue.announce()
        return body

    async def get(self, owner: str, id: str) -> dict[str, Any]:
        """A batch as it is now, or `NotFound`."""
        rows = await self._rows(owner)
        return await rows.resource(await rows.row(id))

    async def list(self, owner: str, page: PageQuery) -> dict[str, Any]:
        """A page of batches."""
        rows = await self._rows(owner)
        found = await rows.batches.page(order=page.order, limit=page.limit, after=page.after)
        return list_body([await rows.resource(row) for row in found.rows], has_more=found.has_more)

    async def cancel(self, owner: str, id: str) -> dict[str, Any]:
        """Begin no more lines; those that were answered are kept. One that is at its end is answered as it is."""
        rows = await self._rows(owner)
        row = await rows.row(id)
        while row["status"] in ("validating", "in_progress"):
            body = json.loads(row["body"]) | {"status": "cancelling", "cancelling_at": int(self._clock())}
            try:
                await (await self._storage.database()).run(rows.changing(body, when=row["status"]))
            except Conflict:
                log.debug("batch %s went on while it was being cancelled", id)
            row = await rows.row(id)
        if id in self._changed:
            self._changed[id].set()
        return await rows.resource(row)

    async def _made_before(self, rows: BatchRows, body: dict[str, Any], wire: WireBatchRequest) -> dict[str, Any]:
        """The batch that the key of the request made the first time, if the request was the same."""
        found = await rows.batches.find({"request_key": wire.idempotency_key})
        before = await rows.resource(found[0])
        asked = ("endpoint", "input_file_id", "completion_window", "metadata")
        different = [name for name in asked if before[name] != body[name]]
        if different:
            raise Conflict(f"idempotency_key was used for a batch with another {different[0]}; take a new key")
        return before

    async def _work(self, context: JobContext) -> None:
        """Do the job: the batch is at an end when this returns, or it is another's."""
        id, owner = context.job.payload["batch"], context.job.owner
        rows = await self._rows(owner)
        try:
            row = await rows.row(id)
        except NotFound:
            return
        self._changed[id] = asyncio.Event()
        work = _Work(self._storage, self._files, rows, context, row, self._clock)
        try:
            await self._go_on(work)
        except (Conflict, StorageError, EngineStopped, Overloaded):
            raise
        except (InvalidRequest, NotFound) as failed:
            await work.fail("batch_failed", str(failed))
        except Exception:
            if context.job.attempts < MAX_ATTEMPTS:
                raise
            log.exception("batch %s failed by a bug", id)
            await work.fail("internal_error", f"internal error; the server's log has it under {id}")
        finally:
            del self._changed[id]

    async def _refused(self, context: JobContext, reason: str) -> None:
        """End a batch whose key has ended; what was answered has its files."""
        rows = await self._rows(context.job.owner)
        try:
            row = await rows.row(context.job.payload["batch"])
        except NotFound:
            return
        if row["status"] in RUNNING:
            work = _Work(self._storage, self._files, rows, context, row, self._clock)
            await work.fail(KEY_ENDED, reason)

    async def _go_on(self, work: _Work) -> None:
        """From whatever status the batch was left in to its end."""
        await work.count_attempt()
        if work.status == "validating":
            await work.validate()
        ending = "completed" if work.status == "finalizing" else "cancelled"
        if work.status == "in_progress":
            ending = await self._answer_lines(work)
        if work.status != "failed":
            await work.end(ending, {})

    async def _answer_lines(self, work: _Work) -> str:
        """Answer what is not answered yet; how the batch is to end."""
        done = await work.rows.done(work.id)
        stopper = asyncio.create_task(self._stopped(work))
        running: set[asyncio.Task[None]] = set()
        try:
            async with aclosing(work.lines()) as each:  # pyright: ignore[reportArgumentType]
                async for line in each:
                    if line.number in done:
                        continue
                    running.add(asyncio.create_task(self._answer_line(work, line)))
                    running = await _settled(running, stopper, most=AT_ONCE - 1)
                    if stopper.done():
                        return stopper.result()
            running = await _settled(running, stopper, most=0)
            return stopper.result() if running else "completed"
        finally:
            for task in (stopper, *running):
                task.cancel()
            await asyncio.gather(stopper, *running, return_exceptions=True)

    async def _stopped(self, work: _Work) -> str:
        """Wait until the batch has to stop before all lines are answered; how it is to end."""
        changed = self._changed[work.id]
        while True:
            if (await work.rows.row(work.id))["status"] != "in_progress":
                return "cancelled"
            if self._clock() >= work.body["expires_at"]:
                return "expired"
            try:
                async with asyncio.timeout(POLL_S):
                    await changed.wait()
                changed.clear()
            except TimeoutError:
                continue

    async def _answer_line(self, work: _Work, line: Line) -> None:
        asker = Asker(owner=work.owner, salt=work.row["salt"], request_id=LINE.new())
        if self._answer is None:
            raise EngineStopped("nobody is here to answer the lines of a batch")
        answered = Answered(status=503, body=None)
        for attempt in range(MAX_TRIES):
            async with self._room:
                answered = await self._answer(work.body["endpoint"], line.body, asker)
            if answered.status not in BUSY:
                break
            await asyncio.sleep(min(30.0, 0.5 * 2**attempt))
        fault("batches.before_line")
        await work.keep(line, asker.request_id, answered)
        fault("batches.after_line")

    async def _rows(self, owner: str) -> BatchRows:
        return BatchRows(await self._storage.database(), owner)


class _Work:
    """One attempt at a batch. Every write demands that the job is still its own."""

    def __init__(
        self,
        storage: Storage,
        files: Files,
        rows: BatchRows,
        context: JobContext,
        row: Row,
        clock: Callable[[], float],
    ) -> None:
        self._storage = storage
        self._files = files
        self._context = context
        self._clock = clock
        self._progress: dict[str, int] = dict(context.progress or {"done": 0, "fruitless": 0})
        self.rows = rows
        self.row = row
        self.id: str = row["id"]
        self.owner = context.job.owner
        self.body: dict[str, Any] = json.loads(row["body"])

    @property
    def status(self) -> str:
        """The status that this attempt has seen or set."""
        return self.body["status"]

    def lines(self) -> AsyncIterator[Line]:
        """The input, which was found to be in order."""
        return lines(self._files.pieces(self.owner, self.body["input_file_id"]), self.body["endpoint"])

    async def count_attempt(self) -> None:
        """Raise where one attempt after the other ended its process and no line was answered in between."""
        done = len(await self.rows.done(self.id))
        is_fruitless = self._context.job.attempts > 1 and done == self._progress["done"]
        self._progress = {"done": done, "fruitless": self._progress["fruitless"] + 1 if is_fruitless else 0}
        if self._progress["fruitless"] >= MAX_FRUITLESS:
            raise InvalidRequest(f"given up: {MAX_FRUITLESS} attempts ended without a line answered")
        await self._commit()

    async def validate(self) -> None:
        """Read the input once; the batch goes on, or is failed with everything that is wrong."""
        try:
            checked = await check_input(
                self._files.pieces(self.owner, self.body["input_file_id"]), self.body["endpoint"]
            )
        except NotFound as gone:
            await self.fail("file_not_found", str(gone))
            return
        if checked.errors:
            await self.end("failed", {"errors": {"object": "list", "data": checked.errors}})
            return
        counts = {"total": checked.total, "completed": 0, "failed": 0}
        await self._change(
            {
                "status": "in_progress",
                "in_progress_at": self._now(),
                "model": checked.model,
                "request_counts": counts,
            }
        )

    async def keep(self, line: Line, request_id: str, answered: Answered) -> None:
        """Commit what became of a line."""
        response = {"status_code": answered.status, "request_id": request_id, "body": answered.body}
        if answered.ignored:
            response["ignored"] = list(answered.ignored)
        text = json.dumps(
            {"id": LINE.new(), "custom_id": line.custom_id, "response": response, "error": None},
            separators=(",", ":"),
        )
        is_error = answered.status != 200
        usage = (0, 0, 0) if is_error else usage_of(answered.body)
        result = Result(line=line.number, is_error=is_error, text=text, usage=usage)
        try:
            await self._commit(self.rows.keeping(self.id, result), *answered.kept)
        except (Conflict, InvalidRequest, NotFound) as fault:
            # What is kept has no place any more, such as a deleted conversation; or the job is another's, and then
            # the second attempt says so.
            if not answered.kept or answered.refused is None:
                raise
            await self.keep(line, request_id, answered.refused(fault))

    async def fail(self, code: str, message: str) -> None:
        """Commit that the batch cannot go on, and why; lines that were answered have their files all the same."""
        error = {"code": code, "line": None, "message": message, "param": None}
        await self.end("failed", {"errors": {"object": "list", "data": [error]}})

    async def end(self, ending: str, changes: dict[str, Any]) -> None:
        """Make the files and commit them with the end."""
        if ending == "completed":
            if self.status != "finalizing":
                await self._change({"status": "finalizing", "finalizing_at": self._now()})
            ending = "completed" if self.status == "finalizing" else "cancelled"
        counts, usage = await self.rows.counts(self.id)
        files: list[Statement] = []
        changes |= {"status": ending, f"{ending}_at": self._now(), "usage": usage}
        changes["request_counts"] = self.body["request_counts"] | counts
        if counts["completed"]:
            made = self.rows.results(self.id, is_error=False)
            changes["output_file_id"] = await self._file("output", made, files)
        is_left = sum(counts.values()) < self.body["request_counts"]["total"] and ending in _UNFINISHED
        if counts["failed"] or is_left:
            changes["error_file_id"] = await self._file("error", self._errors(ending), files)
        fault("batches.before_end")
        await self._change(changes, *files, self.rows.clearing(self.id))

    async def _file(self, name: str, content: AsyncIterator[bytes], files: list[Statement]) -> str:
        """Keep the content; the file itself comes to be with the statement that is added to `files`."""
        blob = await self._files.receive(content, limit=MAX_OUTPUT_BYTES)
        file_name, expiry_s = f"{self.id}_{name}.jsonl", self.row["output_expiry_s"]
        id, statement = await self._files.adding(self.owner, file_name, "batch_output", blob, expiry_s)
        files.append(statement)
        return id

    async def _errors(self, ending: str) -> AsyncIterator[bytes]:
        """Lines that failed, then those that were never answered."""
        async for piece in self.rows.results(self.id, is_error=True):
            yield piece
        if ending not in _UNFINISHED:
            return
        done = await self.rows.done(self.id)
        code, message = _UNFINISHED[ending]
        async for line in self.lines():
            if line.number not in done:
                error = {"code": code, "message": message}
                left = {"id": LINE.new(), "custom_id": line.custom_id, "response": None, "error": error}
                yield f"{json.dumps(left, separators=(',', ':'))}\n".encode()

    async def _change(self, changes: dict[str, Any], *statements: Statement) -> None:
        """Commit changes of the batch; one that was cancelled meanwhile stays so until its end."""
        body = self.body | changes
        try:
            await self._commit(self.rows.changing(body, when=self.status), *statements)
            self.body = body
        except Conflict:
            now = json.loads((await self.rows.row(self.id))["body"])
            if now["status"] == self.status:
                raise
            self.body = now
            if changes["status"] in ("cancelled", "expired", "failed"):
                await self._commit(self.rows.changing(now | changes, when=now["status"]), *statements)
                self.body = now | changes

    async def _commit(self, *statements: Statement) -> None:
        database = await self._storage.database()
        await database.run(self._context.saving(self._progress), *statements)

    def _now(self) -> int:
        return int(self._clock())


async def _settled(
    running: set[asyncio.Task[None]], stopper: asyncio.Task[str], *, most: int
) -> set[asyncio.Task[None]]:
    """Those that still run once they are at most so many, or the stopper is done; raises what one of them raised."""
    while len(running) > most and not stopper.done():
        await asyncio.wait((*running, stopper), return_when=asyncio.FIRST_COMPLETED)
        for task in [task for task in running if task.done()]:
            running.discard(task)
            task.result()
    return running
