"""The manners every command shares: plain help, `-h`, no completion options of its own."""

from __future__ import annotations

from typing import Any

import typer


def new_app(*, add_completion: bool = False, **settings: Any) -> typer.Typer:
    """A typer application with the manners of this command line."""
    return typer.Typer(
        add_completion=add_completion,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **settings,
    )
