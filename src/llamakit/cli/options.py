"""Flags that several commands share, and loading a model the way a person asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llamakit.cli.pull import pull_shown
from llamakit.cli.terminal import confirm, working
from llamakit.core.config import Settings, config_path, data_home, load
from llamakit.core.errors import MissingExtra, UnknownModel
from llamakit.hub import names
from llamakit.hub.locate import locate

if TYPE_CHECKING:
    from llamakit.runtime.llm import LLM

Context = Annotated[
    int | None, typer.Option(min=1, help="Tokens of context; by default the model's, if memory holds it.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads to compute with; by default one per physical core.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Quantize = Annotated[
    str | None,
    typer.Option(help="Pack the weights as they load: int8 or int4; none for plain numbers whatever is stored."),
]
Kv = Annotated[str | None, typer.Option("--kv", help="int8: keep keys and values in a byte each, for long contexts.")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")]


def complete_model(incomplete: str) -> list[str]:
    """Names for the shell to offer: models that are here, then known ones."""
    from llamakit.hub import cache, catalog
    from llamakit.hub.locate import present

    here = [line.name for line in present(home=data_home(), hub=cache.hub_cache())]
    known = [model.name for model in catalog.models() if model.not_yet is None]
    return [name for name in dict.fromkeys([*here, *known]) if name.startswith(incomplete)]


def load_llm(
    name: str | None,
    *,
    context: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    quantize: str | None = None,
    kv: str | None = None,
    prompt_format: str | None = None,
    speculation: bool = True,
    draft: str | None = None,
    offline: bool = False,
) -> LLM:
    """The model `name` (the settings' own by default), pulled first if the person agrees, loaded."""
    flags: dict[str, Any] = {"model": name, "context": context, "threads": threads, "device": device, "dtype": dtype}
    flags |= {"quantize": quantize, "kv": kv}
    settings = load(Settings, file=config_path(), flags=flags | ({"offline": True} if offline else {})).value
    ensure_here(settings.model, offline=settings.offline)
    require_torch()
    with working(f"loading {settings.model}"):
        from llamakit.runtime.quick_import import link_torch, unswept

        link_torch()
        with unswept():
            from llamakit.runtime.llm import LLM
            from llamakit.runtime.opening import LoadOptions

        options = LoadOptions(
            dtype=settings.dtype,
            quantize=settings.quantize,
            kv=settings.kv,
            device=settings.device,
            threads=settings.threads,
            context=settings.context,
            prompt_format=prompt_format,
            speculation=speculation,
            draft=draft,
        )
        return LLM.load(settings.model, options=options)


def ensure_here(name: str, *, offline: bool) -> None:
    """Have the model's files on this machine; asks before a download, raises `UnknownModel` with the command else."""
    ref = names.resolve(name, home=data_home())
    try:
        locate(ref)
    except UnknownModel:
        if ref.source != "hub" or (ref.model is not None and ref.model.not_yet) or offline:
            raise
        if not confirm(f"{ref.name} is not on this machine. Pull it now?"):
            raise
        pull_shown(ref)


def require_torch() -> None:
    """Raise `MissingExtra` with the install line where torch is missing."""
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        raise MissingExtra("running a model needs torch. Install it with: pip install 'llamakit[torch]'")
