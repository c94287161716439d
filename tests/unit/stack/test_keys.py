"""API keys in the database: their spelling, their life, and that nothing but a hash is kept."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.postgres import empty_database

from llamakit.core.errors import ConfigError, Conflict, NotFound, StorageFull
from llamakit.stack.access import ALL_SCOPES, DEFAULT_SCOPES, KeyLimits, Scope, may, read_scopes
from llamakit.stack.keys import FRESH_S, Key, KeyBook, is_key, key_facts, new_key
from llamakit.stack.schema import STEPS
from llamakit.stack.storage import Storage


@pytest.fixture
async def storage(tmp_path):
    storage = Storage(f"sqlite:{tmp_path / 'server.db'}", STEPS)
    yield storage
    await storage.aclose()


@pytest.fixture
def book(storage):
    return KeyBook(storage)


def test_keys_are_long_distinct_and_recognised():
    keys = {new_key().reveal() for _ in range(500)}
    assert len(keys) == 500 and all(is_key(key) for key in keys)
    assert all(re.fullmatch(r"llk_[0-9A-Za-z]{49}", key) for key in keys)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 52), st.sampled_from("09AZaz_-"))
def test_one_wrong_letter_is_noticed(place, letter):
    key = new_key().reveal()
    wrong = key[:place] + letter + key[place + 1 :]
    assert is_key(wrong) == (wrong == key)


@pytest.mark.parametrize("text", ["", "llk_", "sk-abcdefgh", "llk_" + "0" * 49, "llk_é" + "0" * 48, "llk_" + "٣" * 49])
def test_other_texts_are_no_keys(text):
    assert not is_key(text)


async def test_a_key_is_made_found_and_ended(book):
    key, made = await book.create("ci", expires_s=3600, limits=KeyLimits(streams=2))
    found = await book.find(key.reveal())
    assert found is not None and (found.id, found.owner, found.limits) == (made.id, made.owner, KeyLimits(streams=2))
    assert found.scopes == DEFAULT_SCOPES and made.owner.startswith("key-")
    assert [one.id for one in await book.list()] == [made.id]
    assert not await book.ended([made.id])
    assert (await book.revoke("ci")).state == "revoked"
    assert await book.find(key.reveal()) is None
    assert await book.ended([made.id]) == {made.id}
    assert await book.list() == [] and len(await book.list(ended=True)) == 1
    with pytest.raises(NotFound):
        await book.revoke("ci")
    await book.create("ci")
    await book.aclose()


async def test_a_revocation_elsewhere_is_seen_within_a_second(storage):
    here, there = KeyBook(storage), KeyBook(storage)
    key, made = await there.create("ci")
    assert await here.find(key.reveal()) is not None
    await there.revoke(made.id)
    await asyncio.sleep(FRESH_S + 0.05)
    assert await here.find(key.reveal()) is None
    await here.aclose()


async def test_an_expired_key_lets_nobody_in(book):
    key, made = await book.create("short", expires_s=0.05)
    await asyncio.sleep(0.06)
    assert await book.find(key.reveal()) is None
    assert await book.ended([made.id]) == {made.id}
    assert (await book.list(ended=True))[0].state == "expired"


async def test_use_is_noted(book):
    key, made = await book.create("ci")
    assert made.used_ns is None
    await book.find(key.reveal())
    await book.aclose()
    assert (await book.list())[0].used_ns is not None


async def test_the_key_itself_is_kept_nowhere(book, storage, tmp_path):
    key, made = await book.create("ci")
    await book.find(key.reveal())
    await book.aclose()
    await storage.aclose()
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert key.reveal().encode() not in files and key.reveal()[14:].encode() not in files
    shown = repr(made) + json.dumps(key_facts(made)) + repr(key) + str(key)
    assert key.reveal()[14:] not in shown and made.hint == key.reveal()[:10]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "a\nb"},
        {"name": "x" * 65},
        {"scopes": ()},
        {"expires_s": 0},
        {"expires_s": 1e12},
        {"owner": "a b"},
        {"owner": ""},
    ],
)
async def test_what_cannot_be_a_key_is_refused(book, wrong):
    with pytest.raises(ConfigError):
        await book.create(**{"name": "ci", **wrong})


async def test_names_in_use_are_unique_and_owners_may_be_shared(book):
    _, first = await book.create("ci", owner="team")
    with pytest.raises(Conflict, match="revoke it first"):
        await book.create("ci")
    _, second = await book.create("ci-2", owner="team")
    assert first.owner == second.owner == "team" and first.id != second.id


def test_scopes_and_limits_are_read_by_name():
    assert read_scopes(["inference", "models:manage"]) == {Scope.inference, Scope.models_manage}
    with pytest.raises(ConfigError, match="nearest: 'inference'"):
        read_scopes(["inferense"])
    assert may(frozenset({Scope.admin}), Scope.tools) and not may(DEFAULT_SCOPES, Scope.models_manage)
    assert ALL_SCOPES > DEFAULT_SCOPES
    with pytest.raises(ConfigError, match="nearest: 'streams'"):
        KeyLimits.of({"stream": 1})
    for wrong in (0, -1, 1.5, "3", 2**60):
        with pytest.raises(ConfigError):
            KeyLimits(streams=wrong)


async def test_a_scope_of_a_later_version_allows_nothing(book, storage):
    await book.create("ci")
    await (await storage.database()).execute("UPDATE api_keys SET scopes = ?1", '["inference", "time-travel"]')
    (row,) = await (await storage.database()).fetch("SELECT * FROM api_keys")
    assert Key.of(row).scopes == {Scope.inference}


async def test_on_postgres(postgres_server):
    async with empty_database(postgres_server) as url:
        storage = Storage(url, STEPS)
        try:
            book = KeyBook(storage)
            key, made = await book.create("ci", expires_s=60)
            assert (await book.find(key.reveal())).id == made.id
            with pytest.raises(Conflict):
                await book.create("ci")
            await book.revoke(made.id)
            assert await book.find(key.reveal()) is None and await book.ended([made.id]) == {made.id}
            await book.aclose()
        finally:
            await storage.aclose()


async def test_use_that_cannot_be_noted_keeps_nobody_out(book, storage, monkeypatch, caplog):
    key, _ = await book.create("ci")
    database = await storage.database()

    async def full(*_):
        raise StorageFull("the disk is full")

    monkeypatch.setattr(database, "execute", full)
    assert await book.find(key.reveal()) is not None
    await book.aclose()
    assert "could not be written down" in caplog.text and key.reveal() not in caplog.text
