"""`llama stack`: servers described by a file: what there is, what one says, and running one."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from llamakit.cli import stack_build, stack_configure
from llamakit.cli.app import new_app
from llamakit.cli.terminal import paint, put, put_json, put_table, say
from llamakit.core.config import Settings, config_path, load
from llamakit.core.errors import ConfigError

app = new_app(no_args_is_help=True, help="Servers described by a file: build, configure, run, and what there is.")
app.command("build", short_help="Write the files of a container, compose, Kubernetes, or an environment.")(
    stack_build.command
)
app.command("configure", short_help="Fill in what a distribution asks for, and keep it.")(stack_configure.command)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="Name of a distribution, or path of a file.", metavar="DISTRO|FILE")]


@app.command("run", short_help="Start the server that a distribution describes.")
def run(
    name: Annotated[
        str, typer.Argument(help="Name of a distribution, or path of a file.", metavar="[DISTRO|FILE]")
    ] = "local",
    host: Annotated[str | None, typer.Option(help="Address to listen on, instead of the file's.")] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="Port, instead of the file's; 0 is any.")] = None,
    env: Annotated[list[str] | None, typer.Option("--env", help="NAME=VALUE for the file; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Build everything, start nothing.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """\b
    llama stack run ollama
    llama stack run ./mine.yaml --port 9000 --env VLLM_URL=http://10.0.0.5:8000

    Start the server that a distribution describes. Variables it needs come from the environment, from --env, or from
    what `llama stack configure` wrote. Ctrl-C stops after running answers.
    """
    import dataclasses

    from llamakit.cli.starting import start
    from llamakit.stack.distribution_file import load as load_distribution

    os.environ.update(_assignments(env or []))
    distribution = load_distribution(name)
    given: dict[str, Any] = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    if given:
        distribution = dataclasses.replace(distribution, server=dataclasses.replace(distribution.server, **given))
    if dry_run:
        from llamakit.stack.build import build_stack

        stack = build_stack(distribution)
        rows = [(row.api, row.entry.provider_id, row.entry.provider_type) for row in stack.providers.entries]
        put_table(("API", "PROVIDER", "TYPE"), rows)
        say(f"\n{distribution.name} can be started: llama stack run {name}", "good")
        return
    start(distribution, offline=load(Settings, file=config_path()).value.offline, verbose=verbose)


@app.command("list-distros", short_help="Distributions by name, and what each asks for.")
def list_distros(as_json: AsJson = False) -> None:
    """\b
    llama stack list-distros
    llama stack list-distros --json

    List the distributions that come with the package and those of this machine, with the variables that each still
    asks for.
    """
    from llamakit.stack import distribution_file

    made = []
    for name in sorted({*distribution_file.shipped(), *distribution_file.own()}):
        source = distribution_file.find(name)
        about = str(source.values().get("about", ""))
        missing = distribution_file.asks_for(source)
        made.append({"name": name, "about": about, "place": source.place, "missing": missing})
    if as_json:
        put_json(made)
        return
    rows = [(row["name"], row["about"], ", ".join(row["missing"]) or "-") for row in made]
    put_table(("NAME", "WHAT IT IS", "STILL ASKS FOR"), rows)
    say("\nSee one: llama stack show NAME. Fill one in: llama stack configure NAME", "faint")


@app.command("show", short_help="A distribution, as it is written and as it is read.")
def show(name: Name, as_json: AsJson = False) -> None:
    """\b
    llama stack show local
    llama stack show onprem --json

    Print a distribution as it is written; to standard error, what its variables are. With --json: as it is read under
    this environment, secrets masked.
    """
    from llamakit.stack import distribution_file
    from llamakit.stack.plain import to_plain

    source = distribution_file.find(name)
    read = _variables(source.values())
    if as_json:
        made: dict[str, Any] = {"name": source.name, "place": source.place, "variables": read}
        try:
            made["distribution"] = to_plain(distribution_file.read(source))
        except ConfigError as fault:
            made["error"] = str(fault)
        put_json(made)
        return
    put(source.text.rstrip())
    if read:
        say("\nVariables:", "strong")
    for variable in read:
        state = (
            "set"
            if variable["is_set"]
            else {"required": "MUST BE SET", "switch": "not set"}.get(
                variable["need"], f"default {variable['default'] or 'nothing'}"
            )
        )
        tone = "bad" if state == "MUST BE SET" else "faint"
        say(f"  {variable['name']:28} {paint(state, tone, sys.stderr)}")


@app.command("list-apis", short_help="The APIs that a server has.")
def list_apis(as_json: AsJson = False) -> None:
    """\b
    llama stack list-apis
    llama stack list-apis --json

    List the APIs of a server: how many operations each has over HTTP, and how many providers of it there are. `apis:`
    in a distribution names those to serve.
    """
    from llamakit.server.listing import served_apis
    from llamakit.stack.resolve import specs

    operations = served_apis()
    providers: dict[str, int] = {}
    for spec in specs():
        providers[spec.api] = providers.get(spec.api, 0) + 1
    rows = [
        {"api": api, "operations": operations.get(api, 0), "providers": providers.get(api, 0)}
        for api in sorted({*operations, *providers})
    ]
    if as_json:
        put_json(rows)
        return
    put_table(
        ("API", "OPERATIONS", "PROVIDERS"),
        [(row["api"], str(row["operations"]), str(row["providers"])) for row in rows],
    )


@app.command("list-providers", short_help="The providers there are, by API.")
def list_providers(
    api: Annotated[str | None, typer.Argument(help="Only those of this API.", metavar="[API]")] = None,
    as_json: AsJson = False,
) -> None:
    """\b
    llama stack list-providers
    llama stack list-providers inference --json

    List the rows of the provider table, those of installed packages among them.
    """
    from llamakit.core.config import nearest
    from llamakit.providers.specs import Api
    from llamakit.stack.resolve import specs

    known = [str(each) for each in Api]
    if api is not None and api not in known:
        raise ConfigError(f"no API {api!r} has providers{nearest(api, known)}. There are: {', '.join(known)}")
    found = [spec for spec in specs() if api in (None, spec.api)]
    if as_json:
        put_json(
            [
                {"api": spec.api, "provider_type": spec.name, "about": spec.summary, "extra": spec.extra}
                for spec in found
            ]
        )
        return
    put_table(("API", "PROVIDER TYPE", "WHAT IT IS"), [(spec.api, spec.name, spec.summary) for spec in found])


def _variables(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The variables of a distribution and whether this environment has them; no value is told."""
    from llamakit.stack.packaging import is_secret
    from llamakit.stack.substitution import variables

    return [
        {
            "name": variable.name,
            "where": variable.where,
            "need": variable.need,
            "default": variable.default,
            "is_secret": is_secret(variable.name),
            "is_set": bool(os.environ.get(variable.name)),
        }
        for variable in variables(values, os.environ)
    ]


def _assignments(texts: list[str]) -> dict[str, str]:
    made = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name.isidentifier():
            raise ConfigError(f"--env takes NAME=VALUE, got {name!r}")
        made[name] = value
    return made
