"""Streams as raw ASGI: pings, disconnects, slow readers, merging, draining; no socket needed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from llamakit.core.errors import EngineStopped, InvalidRequest
from llamakit.server.gone import ClientGone, Drain, while_wanted
from llamakit.server.merge import merged
from llamakit.server.sse import EventStream


class Wire:
    """Both ends of an ASGI exchange."""

    def __init__(self, *, block_after: int | None = None) -> None:
        self.sent: list[dict] = []
        self.gone = asyncio.Event()
        self._block_after = block_after

    async def receive(self):
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)
        if self._block_after is not None and len(self.sent) > self._block_after:
            await asyncio.Event().wait()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]


class Source:
    """Pieces with waits between them, that knows whether it was closed."""

    def __init__(self, *pieces: str | float | Exception) -> None:
        self._pieces = pieces
        self.taken = 0
        self.is_closed = False

    async def pieces(self):
        try:
            for piece in self._pieces:
                if isinstance(piece, Exception):
                    raise piece
                if isinstance(piece, float):
                    await asyncio.sleep(piece)
                    continue
                self.taken += 1
                yield piece
        finally:
            self.is_closed = True


async def stream(source: Source, wire: Wire, *, ping_s: float = 5.0, drain: Drain | None = None) -> None:
    response = EventStream(source.pieces(), request_id="r", drain=drain or Drain(), ping_s=ping_s)
    await response({"type": "http"}, wire.receive, wire.send)


async def test_pieces_become_events():
    wire, source = Wire(), Source("1", "2")
    await stream(source, wire)
    assert wire.body == b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"
    assert wire.sent[-1]["more_body"] is False and source.is_closed
    headers = dict(wire.sent[0]["headers"])
    assert headers[b"content-type"] == b"text/event-stream; charset=utf-8" and b"content-length" not in headers


async def test_an_empty_stream_ends_well():
    wire = Wire()
    await stream(Source(), wire)
    assert wire.status == 200 and wire.body == b"data: [DONE]\n\n"


async def test_what_fails_before_the_first_piece_is_an_ordinary_error():
    wire, source = Wire(), Source(0.01, InvalidRequest("bad", param="x"))
    await stream(source, wire)
    assert wire.status == 400 and b'"param":"x"' in wire.body and source.is_closed


async def test_what_fails_later_is_an_event_without_done():
    wire = Wire()
    await stream(Source("1", InvalidRequest("bad")), wire)
    assert wire.status == 200 and b'"message":"bad"' in wire.body and b"[DONE]" not in wire.body
    assert wire.sent[-1]["more_body"] is False


async def test_silence_is_filled_with_comments():
    wire = Wire()
    await stream(Source(0.12, "1", 0.12, "2"), wire, ping_s=0.05)
    before, after = wire.body.split(b"data: 1\n\n")
    assert before.count(b": ping\n\n") >= 1 and after.count(b": ping\n\n") >= 1
    assert wire.body.endswith(b"data: 2\n\ndata: [DONE]\n\n")


async def test_a_late_failure_after_pings_is_an_event():
    wire = Wire()
    await stream(Source(0.12, InvalidRequest("late")), wire, ping_s=0.05)
    assert wire.status == 200 and b'"message":"late"' in wire.body


@pytest.mark.parametrize("source", [Source(9.0), Source("1", 9.0)], ids=["before the first piece", "in the middle"])
async def test_a_client_that_leaves_closes_the_source(source):
    wire = Wire()
    task = asyncio.ensure_future(stream(source, wire))
    await asyncio.sleep(0.02)
    wire.gone.set()
    await asyncio.wait_for(task, 1)
    assert source.is_closed and b"[DONE]" not in wire.body


async def test_a_slow_reader_holds_up_its_own_source_only():
    wire, source = Wire(block_after=3), Source(*map(str, range(1000)))
    task = asyncio.ensure_future(stream(source, wire))
    await asyncio.sleep(0.02)
    assert source.taken <= 4
    wire.gone.set()
    await asyncio.wait_for(task, 1)
    assert source.is_closed


async def test_pings_do_not_cut_into_a_piece_that_is_being_sent():
    wire, source = Wire(block_after=1), Source("1", "2")
    task = asyncio.ensure_future(stream(source, wire, ping_s=0.02))
    await asyncio.sleep(0.1)
    assert b"ping" not in wire.body
    wire.gone.set()
    await task


async def test_cancelling_the_request_closes_the_source():
    wire, source = Wire(), Source("1", 9.0)
    task = asyncio.ensure_future(stream(source, wire))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.is_closed


async def test_a_cut_drain_ends_streams_with_an_error_event():
    wire, source, drain = Wire(), Source("1", 9.0), Drain()
    task = asyncio.ensure_future(stream(source, wire, drain=drain))
    await asyncio.sleep(0.02)
    assert drain.num_running == 1
    drain.stop()
    assert drain.is_stopping and not task.done()
    drain.cut()
    await asyncio.wait_for(task, 1)
    assert b"the server is stopping" in wire.body and b"[DONE]" not in wire.body and source.is_closed
    assert drain.num_running == 0


async def test_while_wanted_gives_results_and_failures():
    wire = Wire()

    async def value():
        return 5

    async def failure():
        raise InvalidRequest("bad")

    assert await while_wanted(value(), wire.receive, Drain()) == 5
    with pytest.raises(InvalidRequest):
        await while_wanted(failure(), wire.receive, Drain())


async def test_while_wanted_waits_until_the_work_has_ended():
    wire, ended = Wire(), []

    async def work():
        try:
            await asyncio.sleep(9)
        finally:
            await asyncio.sleep(0.02)
            ended.append(True)

    task = asyncio.ensure_future(while_wanted(work(), wire.receive, Drain()))
    await asyncio.sleep(0.01)
    wire.gone.set()
    with pytest.raises(ClientGone):
        await task
    assert ended == [True]


async def test_while_wanted_is_told_when_the_server_stops():
    drain = Drain()
    task = asyncio.ensure_future(while_wanted(asyncio.sleep(9), Wire().receive, drain))
    await asyncio.sleep(0.01)
    drain.cut()
    with pytest.raises(EngineStopped):
        await task


async def collect(sources, width=32):
    async with aclosing(merged([source.pieces() for source in sources], width)) as events:
        return [event async for event in events]


async def test_merged_streams_keep_their_own_order():
    sources = [Source("a", 0.01, "b"), Source("c", "d"), Source()]
    made = await collect(sources)
    assert [piece for position, piece in made if position == 0] == ["a", "b"]
    assert [piece for position, piece in made if position == 1] == ["c", "d"]
    assert all(source.is_closed for source in sources)


async def test_merging_one_stream_and_none():
    assert await collect([Source("a", "b")]) == [(0, "a"), (0, "b")]
    assert await collect([]) == []


async def test_one_failure_ends_all_streams():
    sources = [Source("a", 0.01, InvalidRequest("bad")), Source(9.0, "c")]
    with pytest.raises(InvalidRequest):
        await collect(sources)
    assert all(source.is_closed for source in sources)


async def test_leaving_a_merge_closes_every_stream():
    sources = [Source("a", 9.0), Source("b", 9.0), Source("c")]
    events = merged([source.pieces() for source in sources], 2)
    await anext(events)
    await asyncio.wait_for(events.aclose(), 1)
    assert [source.is_closed for source in sources[:2]] == [True, True]


async def test_merging_reads_only_so_many_at_a_time():
    running = most = 0

    async def counted():
        nonlocal running, most
        running += 1
        most = max(most, running)
        yield running
        await asyncio.sleep(0)
        running -= 1

    async with aclosing(merged([counted() for _ in range(20)], 4)) as events:
        assert len([event async for event in events]) == 20
    assert most <= 4
