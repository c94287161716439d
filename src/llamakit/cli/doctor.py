"""`llama doctor`: is everything here that running a model needs, and what to do about what is not."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from llamakit.cli.env import version_of
from llamakit.cli.terminal import Tone, paint, put, put_json, size
from llamakit.core.config import Settings, config_path, data_home, load, misspelt_variables
from llamakit.core.errors import LlamakitError
from llamakit.hub import cache, embedded

State = Literal["ok", "note", "bad"]
_TONES: dict[State, Tone] = {"ok": "good", "note": "warn", "bad": "bad"}
_CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "i8mm")
LOW_MEMORY_BYTES = 2 << 30
LOW_DISK_BYTES = 5 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One line of the report."""

    what: str
    state: State
    detail: str


def command(
    network: Annotated[bool, typer.Option("--network", help="Also ask whether the hub can be reached.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """\b
    llama doctor
    llama doctor --network --json

    Check the installation: Python, torch, processor, memory, disk, settings and the model of the package. Exits with 1
    when something that is needed is missing.
    """
    findings = list(examine(network=network))
    if as_json:
        put_json([{"what": f.what, "state": f.state, "detail": f.detail} for f in findings])
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            mark = paint(f"{finding.state:<4}", _TONES[finding.state], sys.stdout)
            put(f"{mark}  {finding.what.ljust(width)}  {finding.detail}")
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)


def examine(*, network: bool) -> Iterator[Finding]:
    """Every check in order; a check that breaks is itself a finding."""
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", _python),
        ("torch", _torch),
        ("script", _script),
        ("processor", _processor),
        ("memory", _memory),
        ("settings", _settings),
        ("data", lambda: _writable("data", data_home())),
        ("hub cache", lambda: _writable("hub cache", cache.hub_cache())),
        ("disk", _disk),
        ("model of the package", _embedded),
    ]
    if network:
        checks.append(("hub", _hub))
    for name, check in checks:
        try:
            yield check()
        except (LlamakitError, OSError, ImportError) as error:
            yield Finding(what=name, state="bad", detail=str(error))


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        what="python", state="ok" if sys.version_info >= (3, 11) else "bad", detail=f"{version}, wanted 3.11 or newer"
    )


def _torch() -> Finding:
    if version_of("torch") is None:
        hint = "not installed: models cannot run. Install it with: pip install 'llamakit[torch]'"
        return Finding(what="torch", state="bad", detail=hint)
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device, computing on the CPU"
    return Finding(what="torch", state="ok", detail=f"{torch.__version__}, {torch.get_num_threads()} threads, {device}")


def _script() -> Finding:
    """llama-stack installs a script of the same name; in one environment the later one wins."""
    if version_of("llama-stack") is not None:
        detail = "llama-stack is installed too and owns the same script name; `python -m llamakit` is always this one"
        return Finding(what="script", state="note", detail=detail)
    return Finding(what="script", state="ok", detail=shutil.which("llama") or "not on PATH; use `python -m llamakit`")


def _processor() -> Finding:
    import psutil

    found: list[str] = []
    info = Path("/proc/cpuinfo")
    if info.is_file():
        flags = set(info.read_text(errors="replace").split())
        found = [feature for feature in _CPU_FEATURES if feature in flags]
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    detail = f"{cores} cores, {os.cpu_count()} threads; {', '.join(found) or 'vector features unknown'}"
    return Finding(what="processor", state="ok", detail=detail)


def _memory() -> Finding:
    from llamakit.runtime.memory import available_bytes

    available = available_bytes()
    state: State = "ok" if available >= LOW_MEMORY_BYTES else "note"
    detail = f"{size(available)} available"
    return Finding(what="memory", state=state, detail=detail if state == "ok" else f"{detail}; only small models fit")


def _settings() -> Finding:
    load(Settings, file=config_path())
    slips = misspelt_variables(Settings)
    if slips:
        told = "; ".join(f"{variable} looks like {meant}" for variable, meant in slips.items())
        return Finding(what="settings", state="note", detail=told)
    return Finding(
        what="settings", state="ok", detail=f"{config_path()}{'' if config_path().is_file() else ' (not there)'}"
    )


def _writable(what: str, directory: Path) -> Finding:
    """Whether the directory, or the nearest parent that exists, takes files."""
    place = next(parent for parent in (directory, *directory.absolute().parents) if parent.exists())
    if os.access(place, os.W_OK | os.X_OK):
        return Finding(
            what=what, state="ok", detail=f"{directory}{'' if directory.exists() else ' (made when needed)'}"
        )
    return Finding(what=what, state="bad", detail=f"{place} is not writable; set LLAMA_HOME or HF_HOME elsewhere")


def _disk() -> Finding:
    directory = cache.hub_cache()
    place = next(parent for parent in (directory, *directory.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    state: State = "ok" if free >= LOW_DISK_BYTES else "note"
    return Finding(what="disk", state=state, detail=f"{size(free)} free for downloads")


def _embedded() -> Finding:
    what = "model of the package"
    directory = embedded.find(embedded.DEFAULT)
    if directory is None:
        return Finding(
            what=what, state="bad", detail=f"{embedded.DEFAULT} is not in {embedded.ROOT}; reinstall llamakit"
        )
    if missing := embedded.missing_files(directory):
        return Finding(what=what, state="bad", detail=f"{directory} lacks {', '.join(missing)}; reinstall llamakit")
    embedded.card(directory)
    if version_of("torch") is None:
        return Finding(what=what, state="ok", detail=f"{embedded.DEFAULT} is complete")
    from llamakit.checkpoints.open import open_checkpoint

    with open_checkpoint(directory) as reader:
        count = reader.config().num_parameters
    return Finding(what=what, state="ok", detail=f"{embedded.DEFAULT}, {count:,} parameters, readable")


def _hub() -> Finding:
    import httpx2

    from llamakit.hub.download import hub_endpoint

    endpoint = hub_endpoint(load(Settings, file=config_path()))
    try:
        status = httpx2.head(endpoint, timeout=5.0, follow_redirects=True).status_code
    except httpx2.HTTPError as error:
        detail = f"{endpoint} cannot be reached ({type(error).__name__}); what is here works without it"
        return Finding(what="hub", state="note", detail=detail)
    return Finding(what="hub", state="ok" if status < 500 else "note", detail=f"{endpoint} answers {status}")
