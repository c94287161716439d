"""The pool of models: loaded once, shared, evicted when idle, restarted after a failure."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from tests.tiny import FakeClock

from llamakit.core.errors import Overloaded, UnknownModel
from llamakit.runtime.pool import ModelPool, PoolConfig


class FakeLLM:
    weights_bytes = 10
    cache_bytes = 20
    context = 30
    failure: BaseException | None = None

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log
        log.append(f"load {name}")

    def close(self) -> None:
        self.log.append(f"close {self.name}")


def make_pool(log: list[str], clock: FakeClock | None = None, **config: Any) -> ModelPool:
    def load(name: str) -> Any:
        if name == "absent":
            raise UnknownModel("no model 'absent'", name=name)
        return FakeLLM(name, log)

    return ModelPool(load, PoolConfig(**config), canonical=str.lower, clock=clock or FakeClock())


async def test_concurrent_leases_load_once_and_names_are_canonical() -> None:
    log: list[str] = []
    pool = make_pool(log)

    async def use(name: str) -> None:
        async with pool.lease(name):
            await asyncio.sleep(0)

    await asyncio.gather(*(use(name) for name in ("a", "A", "a", "b")))
    assert sorted(log) == ["load a", "load b"]
    assert [model.name for model in pool.status()] == ["a", "b"]
    await pool.close()
    assert sorted(log[2:]) == ["close a", "close b"]


async def test_the_longest_idle_model_makes_room_and_busy_ones_do_not() -> None:
    log: list[str] = []
    clock = FakeClock()
    pool = make_pool(log, clock, max_loaded=2)
    await pool.load("a")
    clock.advance(1)
    await pool.load("b")
    async with pool.lease("a"):
        await pool.load("c")
        assert log == ["load a", "load b", "close b", "load c"]
        async with pool.lease("c"):
            with pytest.raises(Overloaded, match="a, c"):
                await pool.load("d")
    await pool.close()


async def test_an_idle_model_is_unloaded_after_its_time() -> None:
    log: list[str] = []
    clock = FakeClock()
    pool = make_pool(log, clock, keep_alive_s=0.01)
    await pool.load("a")
    assert pool.status()[0].expires_in_s == pytest.approx(0.01)
    clock.advance(1)
    async with asyncio.timeout(5):
        while pool.status():
            await asyncio.sleep(0.005)
    assert log == ["load a", "close a"]


async def test_keep_alive_forever_and_at_once() -> None:
    log: list[str] = []
    pool = make_pool(log, keep_alive_s=100)
    await pool.load("a", keep_alive_s=-1)
    assert pool.status()[0].expires_in_s is None
    await pool.load("b", keep_alive_s=0)
    async with asyncio.timeout(5):
        while len(pool.status()) > 1 or log[-1] != "close b":
            await asyncio.sleep(0.001)
    assert await pool.unload("a")
    assert not await pool.unload("a")


async def test_unloading_a_model_in_use_waits_for_its_user() -> None:
    log: list[str] = []
    pool = make_pool(log)
    async with pool.lease("a") as llm:
        assert await pool.unload("a")
        assert pool.loaded() == [llm]
    # The lease's own keep-alive counts once it ends; an unload asked for meanwhile must win.
    async with asyncio.timeout(5):
        while pool.status():
            await asyncio.sleep(0.001)


async def test_a_failed_engine_is_replaced() -> None:
    log: list[str] = []
    pool = make_pool(log)
    async with pool.lease("a") as llm:
        llm.failure = RuntimeError("broken")
    async with pool.lease("a") as other:
        assert other is not llm
    assert log == ["load a", "close a", "load a"]
    await pool.close()


async def test_a_model_that_does_not_load_leaves_nothing_behind() -> None:
    pool = make_pool([])
    for _ in range(2):
        with contextlib.suppress(UnknownModel):
            await pool.load("absent")
    assert pool.status() == []
    assert pool._slots == {}
