"""`llama env`: versions, places and variables, as a bug report needs them; keys and tokens are masked."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Annotated

import typer

from llamakit import __version__
from llamakit.cli.terminal import put_facts, put_json
from llamakit.core.config import config_path, data_home
from llamakit.hub import cache, embedded

PACKAGES = (
    "torch", "numpy", "tokenizers", "llguidance", "huggingface-hub", "starlette", "uvicorn", "httpx2", "pydantic",
    "typer", "rich", "prompt-toolkit", "psutil",
)  # fmt: skip
_OURS = ("LLAMA_", "HF_", "HUGGINGFACE_", "OMP_", "MKL_", "CUDA_VISIBLE")
_SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD")


def command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """\b
    llama env
    llama env --json

    Print versions, places and variables for a bug report; nothing secret is shown.
    """
    facts = gather()
    if as_json:
        put_json(facts)
    else:
        put_facts(list(facts.items()))


def gather() -> dict[str, str]:
    """The facts, in order."""
    facts = {
        "llamakit": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        "data": str(data_home()),
        "settings": str(config_path()),
        "hub cache": str(cache.hub_cache()),
        "embedded": ", ".join(embedded.names()) or "none",
    }
    facts |= {package: version_of(package) or "not installed" for package in PACKAGES}
    for name in sorted(os.environ):
        if name.startswith(_OURS):
            facts[name] = "***" if any(word in name for word in _SECRET) else os.environ[name]
    return facts


def version_of(package: str) -> str | None:
    """Installed version of a distribution, without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
