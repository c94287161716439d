"""`llama key`: the API keys in a server's database, also while the server runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from llamakit.cli.app import new_app
from llamakit.cli.terminal import put, put_json, put_table, say
from llamakit.core.config import Duration
from llamakit.core.errors import ConfigError

if TYPE_CHECKING:
    from llamakit.stack.keys import KeyBook

T = TypeVar("T")

app = new_app(no_args_is_help=True, help="API keys of the server, kept in its database.")

Where = Annotated[
    str | None,
    typer.Option(
        "--storage",
        envvar="LLAMA_STORAGE",
        show_envvar=False,
        help="The server's database, as it was told: local, sqlite:PATH or a PostgreSQL URL (better in LLAMA_STORAGE).",
    ),
]
Distro = Annotated[str | None, typer.Option("--distro", help="Name or file of the distribution whose database it is.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("create", short_help="Make a key and show it this once.")
def create(
    name: Annotated[str, typer.Argument(help="What to call it; unique among keys in use.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do; may be repeated. By default to use the server, not to run it."),
    ] = None,
    expires: Annotated[str | None, typer.Option(help="How long it lives, such as 12h or 90d.")] = None,
    owner: Annotated[
        str | None, typer.Option(help="As whom it acts; keys of one owner see the same objects. New by default.")
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Requests in any 60 seconds.")] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Tokens of prompts and answers in any 60 seconds.")
    ] = None,
    streams: Annotated[
        int | None, typer.Option(min=1, help="Requests answered at the same time, in each server process.")
    ] = None,
    bytes_per_day: Annotated[int | None, typer.Option(min=1, help="Bytes of request bodies in any 24 hours.")] = None,
    storage: Where = None,
    distro: Distro = None,
    as_json: AsJson = False,
) -> None:
    """\b
    llama key create laptop
    llama key create ci --scope inference --expires 90d --requests-per-minute 60 --json

    Make a key. It is printed once and kept as a hash; a running server takes it at once. Scopes: inference,
    objects:read, objects:write, tools, models:read, models:manage, metrics, admin.
    """
    from llamakit.stack.access import DEFAULT_SCOPES, KeyLimits, read_scopes
    from llamakit.stack.keys import key_facts

    limits = KeyLimits(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        streams=streams,
        bytes_per_day=bytes_per_day,
    )
    scopes = read_scopes(scope) if scope else DEFAULT_SCOPES
    lives_s = None if expires is None else float(Duration.parse(expires))
    secret, made = _with_book(
        storage,
        distro,
        lambda book: book.create(name, owner=owner, scopes=scopes, limits=limits, expires_s=lives_s),
    )
    if as_json:
        put_json({"key": secret.reveal(), **key_facts(made)})
        return
    put(secret.reveal())
    say(f"This is the key {name!r}. It is not shown again.", "strong")
    say(f"It may: {', '.join(sorted(made.scopes))}. End it with: llama key revoke {made.id}")


@app.command("list", short_help="Keys, what they may do and when they were last used.")
def list_keys(
    ended: Annotated[bool, typer.Option("--all", help="Also revoked and expired ones.")] = False,
    storage: Where = None,
    distro: Distro = None,
    as_json: AsJson = False,
) -> None:
    """\b
    llama key list
    llama key list --all --json

    List keys: how each begins, what it may do, and when it was last used. Keys themselves are not kept.
    """
    from llamakit.stack.keys import key_facts

    found = [key_facts(key) for key in _with_book(storage, distro, lambda book: book.list(ended=ended))]
    if as_json:
        put_json(found)
        return
    if not found:
        say("No key is there. Make one with: llama key create NAME")
        return
    rows = [
        (
            fact["name"],
            fact["begins_with"] + "...",
            fact["state"],
            " ".join(fact["scopes"]),
            " ".join(f"{limit}={value}" for limit, value in fact["limits"].items()) or "none",
            fact["expires"] or "never",
            fact["last_used"] or "never",
            fact["id"],
        )
        for fact in found
    ]
    put_table(("NAME", "KEY", "STATE", "SCOPES", "LIMITS", "EXPIRES", "LAST USED", "ID"), rows)


@app.command("revoke", short_help="End a key, and what runs by it.")
def revoke(
    key: Annotated[str, typer.Argument(help="Its name or id, as `llama key list` shows them.")],
    storage: Where = None,
    distro: Distro = None,
    as_json: AsJson = False,
) -> None:
    """\b
    llama key revoke laptop
    llama key revoke ci --json

    End a key. Servers refuse it within a second, and end the answers that it is getting.
    """
    from llamakit.stack.keys import key_facts

    ended = _with_book(storage, distro, lambda book: book.revoke(key))
    if as_json:
        put_json(key_facts(ended))
        return
    say(f"The key {ended.name!r} ({ended.hint}...) lets nobody in any more", "good")


def _with_book(storage: str | None, distro: str | None, work: Callable[[KeyBook], Awaitable[T]]) -> T:
    """Open the database, do the work, close it."""
    from llamakit.stack.keys import KeyBook
    from llamakit.stack.schema import STEPS
    from llamakit.stack.storage import LOCAL, TEMPORARY, Storage

    if storage is not None and distro is not None:
        raise ConfigError("--storage and --distro both say where the database is; give one of them")
    target = _database_of(distro) if distro is not None else storage or LOCAL
    if target == TEMPORARY:
        raise ConfigError("a database in memory belongs to its server alone; serve with another --storage to use keys")

    async def run() -> Any:
        opened = Storage(target, STEPS)
        try:
            return await work(KeyBook(opened))
        finally:
            await opened.aclose()

    return asyncio.run(run())


def _database_of(distro: str) -> str:
    from llamakit.stack.distribution_file import load

    return load(distro).storage.database
