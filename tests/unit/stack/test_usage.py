"""Limits: never more than was allowed in any window, over processes and restarts, at small cost."""

from __future__ import annotations

import asyncio
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.postgres import empty_database

from llamakit.core.errors import StorageError
from llamakit.stack.access import KeyLimits
from llamakit.stack.schema import STEPS
from llamakit.stack.storage import Storage
from llamakit.stack.usage import UsageBook
from llamakit.stack.windows import DAY, MINUTE, Window


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def storage(tmp_path):
    storage = Storage(f"sqlite:{tmp_path / 'server.db'}", STEPS)
    yield storage
    await storage.aclose()


def book_of(storage, clock):
    return UsageBook(storage, wall=clock, ticks=clock)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(0, 30), max_size=60), st.integers(1, 10))
def test_no_window_ever_holds_more_than_the_limit(pauses, limit):
    window, now, entered = Window(MINUTE), 1e9, []
    for pause in pauses:
        now += pause
        if window.used(now) < limit:
            window.add(1, now)
            entered.append(now)
        else:
            wait = window.wait_s(1, limit, now)
            assert 0 < wait <= 65
            assert window.used(now + wait - 0.01) >= limit > window.used(now + wait + 0.01)
        assert Window.read(MINUTE, window.written()) == window
    for first in entered:
        assert sum(first <= at <= first + 60 for at in entered) <= limit


def test_a_clock_set_back_does_not_lock_anybody_out():
    window = Window(MINUTE)
    window.add(5, 1e9 + 3600)
    assert window.used(1e9) == 0 and window.used(1e9 + 3600) == 5
    window.forget(1e9)
    assert not window.steps


def test_what_needs_more_than_the_limit_waits_a_whole_window():
    assert Window(DAY).wait_s(11, 10, 1e9) == DAY.window_s
    assert Window(MINUTE).empty_in_s(1e9) == 0


async def entered(book, limits, count, name="key_1"):
    rooms = [await book.enter(name, limits) for _ in range(count)]
    return sum(room.fault is None for room in rooms), rooms[-1]


async def test_requests_are_counted_exactly(storage):
    clock = Clock()
    book = book_of(storage, clock)
    limits = KeyLimits(requests_per_minute=50)
    number, last = await entered(book, limits, 60)
    assert number == 50 and last.fault == "50 requests a minute" and 55 <= last.retry_after_s <= 65
    assert (await entered(book, limits, 1, "key_2"))[0] == 1
    clock.now += last.retry_after_s + 0.01
    assert (await entered(book, limits, 60))[0] == 50


async def test_what_remains_is_told(storage):
    book = book_of(storage, Clock())
    limits = KeyLimits(requests_per_minute=10, tokens_per_minute=100)
    first = await book.enter("a", limits)
    assert (first.remaining_requests, first.remaining_tokens) == (9, 100)
    book.charge("a", limits, tokens=30)
    second = await book.enter("a", limits)
    assert (second.remaining_requests, second.remaining_tokens) == (8, 70)
    await book.aclose()


async def test_few_requests_reach_the_database(storage):
    clock, reads = Clock(), 0
    book = book_of(storage, clock)
    real = book._read

    async def counted(*args):
        nonlocal reads
        reads += 1
        return await real(*args)

    book._read = counted
    number, _ = await entered(book, KeyLimits(requests_per_minute=6000), 1000)
    assert number == 1000 and reads < 25


async def test_tokens_keep_out_until_they_have_aged(storage):
    clock = Clock()
    book = book_of(storage, clock)
    limits = KeyLimits(tokens_per_minute=100)
    assert (await book.enter("a", limits)).fault is None
    book.charge("a", limits, tokens=150)
    room = await book.enter("a", limits)
    assert room.fault == "100 tokens a minute" and room.retry_after_s > 0
    clock.now += 2
    assert (await book.enter("a", limits)).fault is not None
    clock.now += 66
    assert (await book.enter("a", limits)).fault is None
    await book.aclose()


async def test_bytes_are_announced_or_counted(storage):
    clock = Clock()
    book = book_of(storage, clock)
    limits = KeyLimits(bytes_per_day=1000)
    assert (await book.enter("a", limits, 1001)).fault == "1000 bytes a day"
    assert (await book.enter("a", limits, 1000)).fault is None
    book.charge("a", limits, bytes=1000)
    refused = await book.enter("a", limits, 1)
    assert refused.fault is not None and 86_000 < refused.retry_after_s <= 90_000
    await book.aclose()


async def test_a_restart_forgets_nothing_and_gives_back_what_was_not_used(storage):
    clock = Clock()
    limits = KeyLimits(requests_per_minute=100, tokens_per_minute=1000)
    first = book_of(storage, clock)
    assert (await entered(first, limits, 40))[0] == 40
    first.charge("key_1", limits, tokens=400)
    await first.aclose()
    second = book_of(storage, clock)
    room = await second.enter("key_1", limits)
    assert (room.remaining_requests, room.remaining_tokens) == (59, 600)
    await second.aclose()


async def race(books, limits, tasks, each):
    """Requests of many tasks over several processes at once; how many came in."""

    async def ask(book):
        return (await entered(book, limits, each))[0]

    return sum(await asyncio.gather(*(ask(books[n % len(books)]) for n in range(tasks))))


async def test_two_processes_share_one_limit(storage, tmp_path):
    other = Storage(f"sqlite:{tmp_path / 'server.db'}", STEPS)
    try:
        books = [UsageBook(storage), UsageBook(other)]
        came = await race(books, KeyLimits(requests_per_minute=40), tasks=20, each=4)
        assert 38 <= came <= 40
        for book in books:
            await book.aclose()
    finally:
        await other.aclose()


async def test_two_processes_share_one_limit_on_postgres(postgres_server):
    async with empty_database(postgres_server) as url:
        storages = [Storage(url, STEPS) for _ in range(3)]
        try:
            await storages[0].database()
            books = [UsageBook(storage) for storage in storages]
            came = await race(books, KeyLimits(requests_per_minute=60), tasks=30, each=4)
            assert 55 <= came <= 60
            limits = KeyLimits(tokens_per_minute=10)
            books[0].charge("t", limits, tokens=10)
            await books[0].aclose()
            assert (await books[1].enter("t", limits)).fault is not None
            for book in books:
                await book.aclose()
        finally:
            for storage in storages:
                await storage.aclose()


async def test_forgotten_meters_take_no_memory(storage):
    clock = Clock()
    book = book_of(storage, clock)
    limits = KeyLimits(requests_per_minute=5)
    for number in range(20):
        await book.enter(f"key_{number}", limits)
    clock.now += 400
    await book.aclose()
    assert not book._meters


STEPS_OF_LIFE = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 1), st.integers(1, 6)),
    st.tuples(st.just("wait"), st.floats(0.1, 20), st.just(0)),
    st.tuples(st.just("restart"), st.integers(0, 1), st.booleans()),
)


@settings(deadline=None, max_examples=25)
@given(st.lists(STEPS_OF_LIFE, max_size=25), st.integers(1, 45))
def test_no_window_is_ever_overdrawn_whatever_happens(steps, limit):
    """Two processes on one database, that wait, ask, stop and are killed in any order."""

    async def live() -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            storage = Storage(f"sqlite:{folder}/server.db", STEPS)
            clock, limits, entered = Clock(), KeyLimits(requests_per_minute=limit), []
            books = [book_of(storage, clock), book_of(storage, clock)]
            for kind, first, second in steps:
                if kind == "wait":
                    clock.now += first
                elif kind == "restart":
                    if second:  # an orderly end gives back what was taken in advance; a kill does not
                        await books[first].aclose()
                    books[first] = book_of(storage, clock)
                else:
                    for _ in range(second):
                        if (await books[first].enter("key", limits)).fault is None:
                            entered.append(clock.now)
            await storage.aclose()
            return entered

    entered = asyncio.run(live())
    for first in entered:
        assert sum(first <= at <= first + 60 for at in entered) <= limit


async def test_a_database_that_is_away_lets_nobody_past_a_limit(storage):
    book = UsageBook(storage)
    await storage.aclose()
    with pytest.raises(StorageError):
        await book.enter("key", KeyLimits(requests_per_minute=5))
