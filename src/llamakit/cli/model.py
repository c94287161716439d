"""`llama model`: the verbs of Meta's own tool, over the same catalog and cache."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from llamakit.cli import list as list_command
from llamakit.cli import show as show_command
from llamakit.cli.app import new_app
from llamakit.cli.pull import pull_shown
from llamakit.cli.rm import remove
from llamakit.cli.terminal import paint, put, put_json, put_table, say
from llamakit.core.config import Secret, data_home
from llamakit.core.errors import InvalidRequest, UnknownModel
from llamakit.hub import cache, names

app = new_app(
    no_args_is_help=True, help="Meta's verbs: list, download, describe, prompt-format, verify-download, remove."
)

ModelId = Annotated[
    str, typer.Option("--model-id", help="Meta's descriptor, such as Llama3.2-1B-Instruct, or any name.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list", short_help="Known models, or those on this machine.")
def list_models(
    downloaded: Annotated[bool, typer.Option("--downloaded", help="Only what is on this machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """\b
    llama model list
    llama model list --downloaded --json

    List the known models, or those on this machine.
    """
    list_command.command(every=not downloaded, as_json=as_json)


@app.command("download", short_help="Download a model from the hub.")
def download(
    model_id: ModelId,
    source: Annotated[
        str, typer.Option(help="huggingface; Meta's own links are signed by hand and not fetched here.")
    ] = "huggingface",
    hf_token: Annotated[str | None, typer.Option("--hf-token", help="Hub token.")] = None,
    original: Annotated[bool, typer.Option("--original", help="Meta's .pth files instead of safetensors.")] = False,
) -> None:
    """\b
    llama model download --model-id Llama3.2-1B-Instruct
    llama model download --model-id Llama3.2-1B --original --hf-token hf_...

    Download a model from the hub.
    """
    if source != "huggingface":
        raise InvalidRequest(
            f"--source {source} is not served: use huggingface, or fetch by Meta's link and run the directory"
        )
    for one in model_id.split(","):
        ref = names.resolve(one, home=data_home())
        pull_shown(ref, token=Secret(hf_token) if hf_token else None, original=original)


@app.command("describe", short_help="What a model is.")
def describe(model_id: ModelId, as_json: AsJson = False) -> None:
    """\b
    llama model describe --model-id Llama3.2-1B-Instruct
    llama model describe --model-id llama-guard3:1b --json

    Show what a model is.
    """
    show_command.command(model_id, as_json=as_json)


@app.command("prompt-format", short_help="What a conversation looks like to a model.")
def prompt_format(
    model_id: ModelId,
    tokenizer: Annotated[str | None, typer.Option(help="Model or path whose tokenizer renders the examples.")] = None,
    as_json: AsJson = False,
) -> None:
    """\b
    llama model prompt-format --model-id cria
    llama model prompt-format --model-id Llama3.2-3B-Instruct --tokenizer ./tokenizer-dir

    Show the prompt format of a model by example: what a chat, and where it can, a tool call look like to it.
    """
    from llamakit.cli.prompt_examples import render_examples

    name, examples = render_examples(model_id, tokenizer)
    if as_json:
        put_json(
            {"format": name, "examples": [{"title": e.title, "text": e.text, "ids": list(e.ids)} for e in examples]}
        )
        return
    put(f"Prompt format {name}")
    for example in examples:
        put(f"\n{paint(example.title, 'strong', sys.stdout)} ({len(example.ids)} tokens)")
        put(example.text)


@app.command("verify-download", short_help="Hash downloaded files again.")
def verify_download(model_id: ModelId, as_json: AsJson = False) -> None:
    """\b
    llama model verify-download --model-id Llama3.2-1B-Instruct
    llama model verify-download --model-id llama3.2:1b-q4_K_M --json

    Hash the files of a downloaded model again; exits with 1 when one is damaged.
    """
    from llamakit.hub.download import verify

    ref = names.resolve(model_id, home=data_home())
    found = [s for repo in ref.repos if (s := cache.find_snapshot(cache.hub_cache(), repo, ref.revision)) is not None]
    if ref.source != "hub" or not found:
        raise UnknownModel(f"{ref.name} is no downloaded model on this machine. See what is: llama list", name=ref.name)
    results = [(snapshot.repo, file, is_good) for snapshot in found for file, is_good in verify(snapshot)]
    if as_json:
        put_json([{"repository": repo, "file": file, "good": is_good} for repo, file, is_good in results])
    else:
        put_table(
            ("FILE", "STATE"), [(f"{repo}/{file}", "good" if is_good else "DAMAGED") for repo, file, is_good in results]
        )
    if not all(is_good for _, _, is_good in results):
        say(f"Remove it and pull it again: llama rm {ref.name} && llama pull {ref.name}", "bad")
        raise typer.Exit(1)


@app.command("remove", short_help="Remove a downloaded model.")
def remove_model(
    model: Annotated[str, typer.Option("--model", "-m", help="Meta's descriptor, or any name.")],
    force: Annotated[bool, typer.Option("--force", "-f", help="Do not ask.")] = False,
) -> None:
    """\b
    llama model remove -m Llama3.2-1B-Instruct
    llama model remove -m llama3.2:1b --force

    Remove a downloaded model.
    """
    remove(model, yes=force)
