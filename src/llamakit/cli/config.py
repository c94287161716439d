"""`llama config`: the settings, their values, and where each value came from."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

import typer

from llamakit.cli.app import new_app
from llamakit.cli.terminal import put, put_json, put_table, say
from llamakit.core.config import ENV_PREFIX, Secret, Settings, config_path, field_docs, load, misspelt_variables

app = new_app(no_args_is_help=True, help="Settings: default < file < LLAMA_* variable < flag.")


@app.command("show", short_help="Each setting, its value and its source.")
def show(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """\b
    llama config show
    LLAMA_PORT=9000 llama config show --json

    Print each setting, its value and where the value came from.
    """
    path = config_path()
    loaded = load(Settings, file=path)
    docs = field_docs(Settings)
    values = {field.name: getattr(loaded.value, field.name) for field in fields(Settings)}
    if as_json:
        put_json(
            {
                name: {
                    "value": _json_value(value),
                    "source": loaded.sources[name],
                    "variable": ENV_PREFIX + name.upper(),
                }
                for name, value in values.items()
            }
        )
        return
    rows = [
        (name, "" if value is None else str(value), loaded.sources[name], docs[name]) for name, value in values.items()
    ]
    put_table(("SETTING", "VALUE", "SOURCE", "WHAT IT IS"), rows)
    say(f"\nFile: {path}{'' if path.is_file() else ' (not there)'}", "faint")
    for variable, meant in misspelt_variables(Settings).items():
        say(f"{variable} is set and is no setting; did you mean {meant}?", "warn")


@app.command("path", short_help="Where the settings file is looked for.")
def path() -> None:
    """\b
    llama config path
    "$EDITOR" "$(llama config path)"

    Print where the settings file is looked for.
    """
    put(str(config_path()))


def _json_value(value: object) -> object:
    if isinstance(value, Secret):
        return str(value)
    return float(value) if isinstance(value, float) else value
