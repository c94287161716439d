"""`llama pull`: a model from the hub onto this machine, resumed and verified."""

from __future__ import annotations

from typing import Annotated

import typer

from llamakit.cli.terminal import Transfer, put_json, say, size
from llamakit.core.config import Secret, data_home
from llamakit.hub import names
from llamakit.hub.download import Pulled, pull
from llamakit.hub.names import ModelRef


def command(
    model: Annotated[str, typer.Argument(help="Name of the catalog, owner/repo, or owner/repo:Q4_K_M for GGUF.")],
    quant: Annotated[str | None, typer.Option("--quant", "-q", help="GGUF quantisation, such as Q4_K_M.")] = None,
    mirror: Annotated[bool, typer.Option("--mirror", help="Take the copy that asks for no licence form.")] = False,
    original: Annotated[bool, typer.Option("--original", help="Take Meta's own .pth files.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    token: Annotated[str | None, typer.Option(help="Hub token; HF_TOKEN and `hf auth login` work too.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Another hub; HF_ENDPOINT works too.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only what is here.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON when done.")] = False,
) -> None:
    """\b
    llama pull llama3.2:1b
    llama pull bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M

    Download a model into the Hugging Face cache, where other programs find it too. Interrupted downloads go on where
    they stopped; every file is verified.
    """
    pulled = pull_shown(
        names.resolve(model, home=data_home()),
        quant=quant,
        mirror=mirror,
        original=original,
        revision=revision,
        token=Secret(token) if token else None,
        endpoint=endpoint,
        offline=True if offline else None,
    )
    if as_json:
        put_json(
            {
                "name": pulled.ref.name,
                "repository": pulled.repo,
                "commit": pulled.commit,
                "path": str(pulled.path),
                "files": list(pulled.files),
                "total_bytes": pulled.total_bytes,
                "fetched_bytes": pulled.fetched_bytes,
                "differs": list(pulled.differs),
            }
        )


def pull_shown(
    ref: ModelRef,
    *,
    quant: str | None = None,
    mirror: bool = False,
    original: bool = False,
    revision: str | None = None,
    token: Secret | None = None,
    endpoint: str | None = None,
    offline: bool | None = None,
) -> Pulled:
    """Pull with progress on standard error, and say what came of it."""
    licence = ref.model.licence if ref.model else None
    if licence is not None:
        say(f"{ref.name} comes under {licence.title}: {licence.url}", "faint")
    with Transfer(ref.name) as transfer:
        pulled = pull(
            ref,
            quant=quant,
            mirror=mirror,
            original=original,
            revision=revision,
            token=token,
            endpoint=endpoint,
            offline=offline,
            progress=transfer,
        )
    if pulled.fetched_bytes:
        say(
            f"{pulled.repo} is here: {size(pulled.total_bytes)}, {size(pulled.fetched_bytes)} fetched, verified", "good"
        )
    else:
        say(f"{pulled.repo} was here already ({size(pulled.total_bytes)})", "good")
    for file in pulled.differs:
        say(f"note: {file} is not the file the catalog knows; the hub vouches for these bytes all the same", "warn")
    say(f"Next: llama run {pulled.ref.name}", "faint")
    return pulled
