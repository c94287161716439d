"""`llama show`: what a model is, from its card, the catalog and its own files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from llamakit.cli.terminal import put, put_facts, put_json, say, size
from llamakit.core.config import data_home
from llamakit.core.errors import InvalidRequest, LlamakitError
from llamakit.core.model_config import ModelConfig
from llamakit.hub import catalog, embedded, names
from llamakit.hub.locate import Located, locate
from llamakit.hub.modelfile import Modelfile, render
from llamakit.hub.names import ModelRef


def command(
    model: Annotated[str, typer.Argument(help="Any name of a model, or a path.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_modelfile: Annotated[bool, typer.Option("--modelfile", help="Print the Modelfile of a created model.")] = False,
) -> None:
    """\b
    llama show cria
    llama show llama3.2:1b --json

    Show what a model is: where it comes from, its shape, context, prompt format, licence and names; for the model of
    the package also how it was trained and how it measured.
    """
    ref = names.resolve(model, home=data_home())
    located = _located(ref)
    if as_modelfile:
        if located is None or located.recipe is None:
            raise InvalidRequest(f"{ref.name} is not a created model; a Modelfile for it would say: FROM {ref.name}")
        put(render(located.recipe).rstrip())
        return
    facts = gather(ref, located)
    if as_json:
        put_json(facts)
        return
    put_facts([(_label(name), text) for name, value in facts.items() if (text := _text(name, value))])
    if located is None and ref.source == "hub":
        say(f"\nNot on this machine. Get it with: llama pull {ref.name}", "faint")


def gather(ref: ModelRef, located: Located | None) -> dict[str, Any]:
    """Everything known, as JSON values; what is unknown is absent."""
    facts: dict[str, Any] = {"name": ref.name, "source": ref.source}
    model = ref.model or (located.ref.model if located else None)
    if model is not None:
        facts |= {
            "title": model.title,
            "kind": model.kind,
            "can": list(model.capabilities),
            "runs_here": model.not_yet or True,
            "also_called": [name for name in catalog.spellings(model) if name != ref.name],
            "released": model.released.isoformat(),
            "languages": list(model.languages),
            "licence": {
                "title": model.licence.title,
                "url": model.licence.url,
                "notice": model.licence.notice,
                "show": model.licence.credit,
                "derived_names_begin_with": model.licence.name_prefix,
            },
            "repositories": [*model.repos, *([model.gguf] if model.gguf else [])],
            "parameters": model.num_parameters,
            "context_length": model.context_length,
            "prompt_format": model.prompt_format,
        }
        if model.config is not None:
            facts["shape"] = _shape(model.config)
    if located is not None:
        facts |= _of_files(located)
        if located.recipe is not None:
            facts["recipe"] = _of_recipe(located.recipe)
    if ref.source == "embedded" and ref.path is not None:
        facts["card"] = embedded.card(ref.path)
    return facts


def _located(ref: ModelRef) -> Located | None:
    """Where it is; None for a known model that is not here."""
    try:
        return locate(ref)
    except LlamakitError:
        if ref.source != "hub":
            raise
        return None


def _of_files(located: Located) -> dict[str, Any]:
    from llamakit.checkpoints.open import open_checkpoint

    with open_checkpoint(located.path) as reader:
        config, metadata, integers = reader.config(), reader.metadata(), reader.is_quantized()
    return {
        "taken_from": located.repo,
        "path": str(located.path),
        "size_bytes": _bytes_at(located.path),
        "format": reader.kind,
        "quantization": metadata.quantization,
        "runs_as": "stored, in integers" if integers else "plain numbers, or packed with --quantize",
        "parameters": config.num_parameters,
        "context_length": config.context_length,
        "shape": _shape(config),
    }


def _bytes_at(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file())


def _of_recipe(recipe: Modelfile) -> dict[str, Any]:
    return {
        "from": recipe.base,
        "system": recipe.system,
        "parameters": [f"{name} {value}" for name, value in recipe.parameters],
        "adapters": list(recipe.adapters),
        "messages": [f"{role}: {text}" for role, text in recipe.messages],
        "licence": recipe.licence,
    }


def _shape(config: ModelConfig) -> dict[str, Any]:
    scaling = config.rope_scaling
    return {
        "layers": config.num_layers,
        "width": config.dim,
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "ffn": config.ffn_dim,
        "vocabulary": config.vocab_size,
        "rope_theta": config.rope_theta,
        "rope_factor": scaling.factor if scaling else None,
        "tied_embeddings": config.tie_embeddings,
        "kv_bytes_per_token": config.kv_bytes_per_token(),
    }


def _label(name: str) -> str:
    return name.removesuffix("_bytes").replace("_", " ")


def _text(name: str, value: Any) -> str:
    """A value for people; empty where there is nothing to say."""
    match value:
        case None | "" | []:
            return ""
        case True:
            return "yes"
        case False:
            return "no"
        case int() if name.endswith("_bytes"):
            return size(value)
        case int():
            return f"{value:,}"
        case list() if all(isinstance(item, str) for item in value) and sum(map(len, value)) < 100:
            return ", ".join(value)
        case list():
            return "\n".join(_text("", item) for item in value)
        case dict():
            pairs = [(_label(key), _text(key, item)) for key, item in value.items()]
            return "\n".join(_indented(key, text) for key, text in pairs if text)
        case _:
            return str(value)


def _indented(key: str, text: str) -> str:
    first, *more = text.splitlines()
    if not more:
        return f"{key}: {first}"
    return "\n".join([f"{key}:", *(f"  {line}" for line in (first, *more))])
