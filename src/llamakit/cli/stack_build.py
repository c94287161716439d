"""`llama stack build`: a distribution as files to install: a container, compose, Kubernetes, or an environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llamakit.cli.terminal import put, put_json, say
from llamakit.core.errors import ConfigError, LlamakitError

if TYPE_CHECKING:
    from llamakit.stack.packaging import Bundle


class Target(StrEnum):
    """What to make."""

    container = "container"
    compose = "compose"
    kubernetes = "kubernetes"
    venv = "venv"


def command(
    name: Annotated[str, typer.Argument(help="Name of a distribution, or path of a file.", metavar="DISTRO|FILE")],
    target: Annotated[
        list[Target] | None,
        typer.Option("--target", "-t", help="What to make; may be repeated; by default all but venv."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Directory; by default the name.")] = None,
    package: Annotated[
        str | None, typer.Option(help="What pip installs: a wheel, a directory, a URL; by default this version.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Name and tag of the image.")] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Image to start from: any with Python 3.11 or newer; by default python:3.12-slim."),
    ] = None,
    print_deps: Annotated[bool, typer.Option("--print-deps", help="Only print what pip installs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the files that were made as JSON.")] = False,
) -> None:
    """\b
    llama stack build ollama
    llama stack build vllm --target venv --output ./server

    Write the files that install a distribution elsewhere: distribution.yaml with a Containerfile, a compose file and
    Kubernetes manifests; or make a virtual environment that holds the package and nothing it does not need. No file
    holds a secret.
    """
    from llamakit.stack.distribution_file import find
    from llamakit.stack.packaging import bundle

    source = find(name)
    made = bundle(source, image=image, package=_found(package), base=base)
    if print_deps:
        put(made.requirement if package else f"llamakit[{','.join(made.extras)}]" if made.extras else "llamakit")
        return
    folder = output or Path(source.name)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; --output names a directory")
    written = _write(made, folder, set(target or [Target.container, Target.compose, Target.kubernetes]))
    if as_json:
        put_json({"name": made.name, "image": made.image, "requirement": made.requirement, "files": written})
        return
    for path in written:
        put(path)
    _say_next(made, folder, written)


def _write(made: Bundle, folder: Path, targets: set[Target]) -> list[str]:
    """The files of the targets; returns their paths."""
    from llamakit.core.files import write_durably
    from llamakit.stack.kubernetes import kubernetes
    from llamakit.stack.packaging import compose, containerfile

    texts = {"distribution.yaml": made.source.text}
    if targets & {Target.container, Target.compose}:
        texts["Containerfile"] = containerfile(made)
        texts[".containerignore"] = "*\n!distribution.yaml\n!*.whl\n"
    if Target.compose in targets:
        texts["compose.yaml"] = compose(made)
    if Target.kubernetes in targets:
        texts["kubernetes.yaml"] = kubernetes(made)
    for file, text in texts.items():
        write_durably(folder / file, text.encode())
    written = [str(folder / file) for file in texts]
    if "Containerfile" in texts and Path(made.package).is_file():
        shutil.copyfile(made.package, folder / Path(made.package).name)
        written.append(str(folder / Path(made.package).name))
    if Target.venv in targets:
        _make_environment(made, folder / "venv")
        written.append(str(folder / "venv"))
    return written


def _make_environment(made: Bundle, place: Path) -> None:
    """A virtual environment with the package in it, by pip; raises `LlamakitError` with what pip said."""
    say(f"making {place}")
    # The package's own name for a file of this machine is its path; in an image it would lie elsewhere.
    here = Path(made.package)
    extras = f"[{','.join(made.extras)}]" if made.extras else ""
    requirement = f"{here}{extras}" if here.exists() else made.requirement
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    steps = [
        [sys.executable, "-m", "venv", str(place)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement],
    ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LlamakitError(f"{' '.join(step[1:4])} failed: {done.stderr.strip()[-2000:]}")


def _found(package: str | None) -> str | None:
    """A path made whole, so that pip finds it from anywhere."""
    if package is None or "://" in package or not (os.sep in package or package.endswith(".whl")):
        return package
    path = Path(package).expanduser().resolve()
    if not path.exists():
        raise ConfigError(f"--package: no file {path}")
    return str(path)


def _say_next(made: Bundle, folder: Path, written: list[str]) -> None:
    from llamakit.stack.substitution import variables

    asked = [v.name for v in variables(made.source.values(), {}) if v.need == "required"]
    names = dict.fromkeys([*asked, "LLAMA_API_KEY"])
    names = ["POSTGRES_PASSWORD" if name == "POSTGRES_URL" else name for name in names]
    if str(folder / "compose.yaml") in written:
        say(f"\nStart it with: cd {folder} && {' '.join(f'{n}=...' for n in names)} docker compose up", "faint")
    elif str(folder / "venv") in written:
        say(f"\nStart it with: {folder}/venv/bin/llama stack run {folder}/distribution.yaml", "faint")
    else:
        say(f"\nBuild it with: buildah build --format docker -t {made.image} {folder}", "faint")
