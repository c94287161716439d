"""`llama eval`: how good a model is. `quant`: what packing its weights costs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llamakit.cli.app import new_app
from llamakit.cli.options import Threads, complete_model, ensure_here, require_torch
from llamakit.cli.terminal import put_json, put_table, say, size, working
from llamakit.core.config import Settings, config_path, load
from llamakit.core.errors import ConfigError

if TYPE_CHECKING:
    from llamakit.evals.divergence import Reference, Window
    from llamakit.hub.locate import Located

MAX_TEXT_BYTES = 64 << 20
DEFAULT_SCHEMES = "bf16,int8,q8_0,int4,q4_k_m,q4_0"
HEADER = ("weights", "size", "perplexity", "KL", "KL 99 %", "same token")

app = new_app(
    help="""\b
    llama eval quant cria
    llama eval quant llama3.2:1b --schemes int4,q4_0 --text book.txt

    Measure how good a model is.
    """
)


@app.callback()
def group() -> None:
    """A group of commands, although it has one so far."""


@app.command("quant", short_help="What packing the weights costs: divergence, agreement, perplexity.")
def quant(
    model: Annotated[str, typer.Argument(help="Any name of a model, or a path.", autocompletion=complete_model)],
    schemes: Annotated[
        str | None,
        typer.Option(
            help=f"What to measure, by commas: {DEFAULT_SCHEMES}; q5_k_m, q6_k; stored for a quantized file as it is."
        ),
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="UTF-8 text to measure on; by default generated conversations.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="What to compare with: float32 or bf16, how the same model computes, or another model by name or path."
        ),
    ] = None,
    kv: Annotated[str | None, typer.Option("--kv", help="int8: keep keys and values in a byte each, too.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to score.")] = 8192,
    window: Annotated[int, typer.Option(min=2, help="Tokens that are read at once.")] = 512,
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """\b
    llama eval quant cria
    llama eval quant model-Q4_0.gguf --against ./original --schemes stored

    Compare the predictions of a model with packed weights to those of its weights as released, in float32, token by
    token: the Kullback-Leibler divergence in nats (mean with its standard error, and the 99th percentile), how often
    both find the same token the likeliest, and the perplexity of the text.
    """
    settings = load(Settings, file=config_path(), flags={"threads": threads}).value
    if kv not in (None, "int8"):
        raise ConfigError(f"--kv wants int8, got {kv!r}")
    other = None if against in (None, "float32", "bf16") else against
    for name in (model, other):
        if name is not None:
            ensure_here(name, offline=settings.offline)
    require_torch()
    from llamakit.hub.locate import resolve_model

    located = resolve_model(model)
    original = located if other is None else resolve_model(other)
    _use_threads(settings.threads)
    chosen = _chosen(schemes, located, compared=other is not None)
    way = "bf16" if against == "bf16" else "float32"
    with _reference(original, way, _windows(original, text, window, tokens)) as reference:
        rows = [_measured(located, way, kv, reference) for way in chosen]
    if as_json:
        put_json(
            {"model": model, "against": against or way, "text": str(text) if text else "held", "kv": kv, "rows": rows}
        )
        return
    put_table(HEADER, [_line(row) for row in rows])
    first = rows[0]
    say(f"\n{first['tokens']} tokens; the reference has a perplexity of {first['reference_perplexity']:.4f}", "faint")


def _chosen(schemes: str | None, located: Located, *, compared: bool) -> list[str]:
    from llamakit.checkpoints.load import STORED
    from llamakit.checkpoints.open import open_checkpoint
    from llamakit.runtime.scoring import WAYS

    with open_checkpoint(located.path) as reader:
        is_quantized = reader.is_quantized()
    usual = STORED if is_quantized else DEFAULT_SCHEMES
    chosen = list(dict.fromkeys(word.strip().lower() for word in (schemes or usual).split(",") if word.strip()))
    unknown = [word for word in chosen if word not in WAYS]
    if unknown or not chosen:
        raise ConfigError(f"--schemes wants some of {', '.join(WAYS)}, got {', '.join(unknown) or 'none'}")
    if is_quantized and not compared:
        say(
            f"note: {located.path} is quantized already: what that cost shows only --against the original model", "warn"
        )
    return chosen


def _windows(located: Located, text: Path | None, window: int, tokens: int) -> list[Window]:
    from llamakit.checkpoints.open import open_checkpoint
    from llamakit.evals.texts import held_out, windows_of_text
    from llamakit.text.formats.resolve import detect_format, resolve_format
    from llamakit.text.tokenizer import load_tokenizer

    with open_checkpoint(located.path) as reader:
        source, config, template = reader.tokenizer_source(), reader.config(), reader.metadata().chat_template
    if source is None:
        raise ConfigError(f"{located.path} has no tokenizer; put tokenizer.json or tokenizer.model beside the weights")
    tokenizer, window = load_tokenizer(source), min(window, config.context_length)
    if text is not None:
        return windows_of_text(_read(text), tokenizer, length=window, limit=tokens)
    name = located.prompt_format or detect_format(
        tokenizer, name=located.ref.name, chat_template=template, config=config
    )
    return held_out(resolve_format(name, tokenizer), tokenizer, length=window, limit=tokens)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise ConfigError(f"--text {path} is larger than {size(MAX_TEXT_BYTES)}; cut it")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"--text: no file {path}") from None
    except UnicodeDecodeError as fault:
        raise ConfigError(f"--text {path} is not UTF-8: {fault}") from fault


def _reference(located: Located, way: str, windows: list[Window]) -> Reference:
    from llamakit.evals.divergence import Reference
    from llamakit.runtime.scoring import load_scorer

    with working(f"computing the reference of {located.ref.name}"):
        return Reference(windows, load_scorer(located.path, way))


def _measured(located: Located, way: str, kv: str | None, reference: Reference) -> dict[str, Any]:
    from llamakit.runtime.scoring import load_scorer

    with working(f"measuring {way}"):
        scorer = load_scorer(located.path, way, rounds_keys=kv == "int8")
        return {"weights": way, "size_bytes": scorer.weights_bytes, **asdict(reference.compare(scorer))}


def _line(row: dict[str, Any]) -> list[str]:
    return [
        row["weights"],
        size(row["size_bytes"]),
        f"{row['perplexity']:.4f}",
        f"{row['kl']:.5f} +- {row['kl_error']:.5f}",
        f"{row['kl_p99']:.4f}",
        f"{row['agreement']:.2%}",
    ]


def _use_threads(count: int | None) -> None:
    import psutil
    import torch

    torch.set_num_threads(count or psutil.cpu_count(logical=False) or 1)
