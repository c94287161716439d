"""What `convert` and `quantize` share: the conversion with its progress, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamakit.cli.terminal import Transfer, say, size
from llamakit.hub.locate import resolve_model

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A finished conversion."""

    path: Path
    size_bytes: int
    source_bytes: int
    notes: tuple[str, ...]
    prompt_format: str | None
    """The format of the source where only its name tells it: the result has another name."""


def converted(
    source: str,
    target: Path,
    *,
    quantization: str | None = None,
    dtype: torch.dtype | None = None,
    name: str | None = None,
    force: bool = False,
) -> Result:
    """Convert with a bar on a terminal; raises what `checkpoints.convert` raises."""
    located = resolve_model(source)
    if located.recipe is not None and (located.recipe.adapters or located.recipe.system):
        say(f"note: the recipe of {source} (system text, adapters) is not part of the weights and stays behind", "warn")
    from llamakit.checkpoints.convert import convert
    from llamakit.hub.download import Progress

    with Transfer(f"writing {target}") as bar:
        done = convert(
            located.path,
            target,
            quantization=quantization,
            dtype=dtype,
            name=name,
            force=force,
            progress=lambda done, total: bar(Progress(file=target.name, done=done, total=total)),
        )
    return Result(
        path=done.path,
        size_bytes=_bytes(done.path),
        source_bytes=_bytes(located.path),
        notes=done.notes,
        prompt_format=None if done.has_template else located.prompt_format,
    )


def json_of(result: Result) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "path": str(result.path),
        "size_bytes": result.size_bytes,
        "source_bytes": result.source_bytes,
        "notes": list(result.notes),
    }


def say_result(result: Result) -> None:
    """Tell a person what came of it, and what to do next."""
    for note in result.notes:
        say(f"note: {note}", "warn")
    say(f"wrote {result.path}, {size(result.size_bytes)}; the source has {size(result.source_bytes)}", "good")
    named = f" --format {result.prompt_format}" if result.prompt_format else ""
    say(f"Next: llama run {result.path if result.path.is_absolute() else f'./{result.path}'}{named}", "faint")


def _bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
