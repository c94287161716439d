"""The shape of a database as a numbered list of functions, each run once, in one transaction with its record.

A kill in the middle leaves the database before or after a step, never between. The list only grows:
a function that has been released is not edited, renamed or moved.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from llamakit.core.errors import ConfigError
from llamakit.core.faults import fault
from llamakit.storage.sql import Database, Executor
from llamakit.storage.tables import stamp

Migration = Callable[[Executor], Awaitable[None]]
"""One step; its name is recorded, so that a list out of order is noticed."""

# Any fixed number: processes that start together on PostgreSQL take turns by it.
_ADVISORY_LOCK = 0x6C6C616D61


async def migrate(database: Database, steps: Sequence[Migration], *, subject: str = "llamakit") -> int:
    """Bring the tables of `subject` up to date; how many steps ran.

    Raises `ConfigError` where the database is newer than this build or was made by another list.
    """
    ran = 0
    while await _next_step(database, steps, subject):
        ran += 1
    return ran


async def _next_step(database: Database, steps: Sequence[Migration], subject: str) -> bool:
    """Run the first step that is not recorded; False when there is none."""
    async with database.transaction() as transaction:
        await _take_turn(database, transaction)
        done = await _recorded(transaction, subject)
        _check(done, steps, subject)
        if len(done) == len(steps):
            return False
        step = steps[len(done)]
        await step(transaction)
        fault("migrations.before_record")
        await transaction.execute(
            "INSERT INTO migrations (subject, number, name, applied_ns) VALUES (?1, ?2, ?3, ?4)",
            subject,
            len(done) + 1,
            step.__name__,
            stamp(),
        )
    return True


async def _take_turn(database: Database, transaction: Executor) -> None:
    if database.dialect == "postgres":
        await transaction.fetch("SELECT pg_advisory_xact_lock(?1)", _ADVISORY_LOCK)
    await transaction.execute(
        "CREATE TABLE IF NOT EXISTS migrations (subject TEXT NOT NULL, number BIGINT NOT NULL, name TEXT NOT NULL, "
        "applied_ns BIGINT NOT NULL, PRIMARY KEY (subject, number))"
    )


async def _recorded(transaction: Executor, subject: str) -> list[str]:
    rows = await transaction.fetch("SELECT name FROM migrations WHERE subject = ?1 ORDER BY number", subject)
    return [row["name"] for row in rows]


def _check(done: Sequence[str], steps: Sequence[Migration], subject: str) -> None:
    known = [step.__name__ for step in steps]
    if len(done) > len(known):
        raise ConfigError(
            f"the database has {len(done)} steps of {subject!r}, this build knows {len(known)}: "
            "it was written by a newer version; upgrade llamakit or restore a backup"
        )
    if list(done) != known[: len(done)]:
        raise ConfigError(
            f"the database was made by other steps of {subject!r} ({list(done)}) than this build has ({known})"
        )
