"""Bare `llama`: what is here, whether a server runs, and what to do next."""

from __future__ import annotations

import socket

from llamakit import __version__
from llamakit.cli.terminal import put, put_facts, size
from llamakit.core.config import Settings, config_path, data_home, load
from llamakit.hub import cache, embedded
from llamakit.hub.locate import present

_KNOCK_S = 0.3


def show_status() -> None:
    """Print the state in a few lines, and the next commands."""
    settings = load(Settings, file=config_path()).value
    here = present(home=data_home(), hub=cache.hub_cache())
    names = ", ".join(line.name for line in here[:6]) + (f" and {len(here) - 6} more" if len(here) > 6 else "")
    total = sum(line.size_bytes for line in here)
    address = f"http://{settings.host}:{settings.port}"
    put(f"llamakit {__version__}")
    put_facts(
        [
            ("models", f"{names} ({size(total)})" if here else "none"),
            ("server", f"running at {address}" if is_listening(settings.host, settings.port) else "not running"),
        ]
    )
    put()
    first = "llama run" if embedded.names() else "llama pull llama3.2:1b"
    about = "chat, nothing to download" if embedded.names() else "get a small model"
    for command, meaning in (
        (first, about),
        ('llama run llama3.2:1b "Hi"', "pull Llama 3.2 1B if needed, and answer"),
        ("llama serve", "the OpenAI API on " + address),
        ("llama --help", "everything else"),
    ):
        put(f"  {command:<28}{meaning}")


def is_listening(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=_KNOCK_S):
            return True
    except OSError:
        return False
