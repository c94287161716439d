"""The models on this machine as a server changes them: pull, create, copy, remove.

Everything blocking runs on a worker thread. A client names models and never paths; whether it may ask at all
was decided before.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from llamakit.core.config import data_home
from llamakit.core.errors import InvalidRequest, Overloaded, UnknownModel
from llamakit.hub import cache, catalog, download, embedded, ids, names, store
from llamakit.hub.download import Progress, Pulled
from llamakit.hub.modelfile import PARAMETERS, Modelfile, render
from llamakit.hub.names import ModelRef

MAX_PULLS = 2
"""Downloads at a time; each holds a worker thread."""


_SPELLING = {own: word for word, (own, _) in PARAMETERS.items()}


class _Unwanted(Exception):
    """Nobody waits for the download any more; ends it, and what has arrived is kept."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What a created model adds to its base."""

    modelfile: str
    """Its text."""
    parent: str
    """What it is made from."""
    system: str | None
    parameters: tuple[tuple[str, int | float | str], ...]
    """By the names of Modelfiles."""
    messages: tuple[tuple[str, str], ...]


class Library:
    """The models of one machine: the hub's cache and the recipes in the data directory."""

    def __init__(self, *, home: Path | None = None, hub: Path | None = None, endpoint: str | None = None) -> None:
        self._home = home
        self._hub = hub
        self._endpoint = endpoint
        self._pulls = 0

    @property
    def home(self) -> Path:
        """The data directory."""
        return self._home or data_home()

    @property
    def hub(self) -> Path:
        """The hub's cache."""
        return self._hub or cache.hub_cache()

    async def recipe(self, name: str) -> Recipe | None:
        """The recipe of a created model; None for every other name."""
        return await asyncio.to_thread(self._recipe, name)

    async def pull(self, name: str) -> AsyncGenerator[Progress | Pulled, None]:
        """Download a model, telling how far it is, and at last what it is; closing this stops the download.

        Raises what `hub.download.pull` raises, and `Overloaded` where enough downloads run.
        """
        if self._pulls >= MAX_PULLS:
            raise Overloaded(f"{self._pulls} downloads run already; try again when one has ended", retry_after_s=30.0)
        self._pulls += 1
        try:
            async with contextlib.aclosing(self._pulling(name)) as steps:
                async for step in steps:
                    yield step
        finally:
            self._pulls -= 1

    async def _pulling(self, name: str) -> AsyncGenerator[Progress | Pulled, None]:
        ref = await asyncio.to_thread(names.resolve, name, home=self.home, paths=False)
        loop, moved, is_unwanted = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
        last: list[Progress] = []

        def note(progress: Progress) -> None:
            """Called on the worker thread. Steps nobody has seen yet are replaced by the newest one."""
            if is_unwanted.is_set():
                raise _Unwanted
            last[:] = [progress]
            loop.call_soon_threadsafe(moved.set)

        work = asyncio.ensure_future(asyncio.to_thread(self._pull, ref, note))
        work.add_done_callback(lambda _: moved.set())
        try:
            while not work.done():
                await moved.wait()
                moved.clear()
                if last:
                    yield last.pop()
            yield work.result()
        finally:
            is_unwanted.set()
            # Ends at its next piece; its failure is nobody's any more.
            work.add_done_callback(lambda ended: ended.cancelled() or ended.exception())

    def _pull(self, ref: ModelRef, note: Callable[[Progress], None]) -> Pulled:
        return download.pull(ref, progress=note, home=self.home, hub=self.hub, endpoint=self._endpoint)

    async def create(self, name: str, recipe: Modelfile) -> str:
        """Keep a recipe under `name`; returns the name as it is listed. Raises `InvalidRequest`, `UnknownModel`."""
        return await asyncio.to_thread(self._create, name, recipe)

    async def copy(self, source: str, destination: str) -> str:
        """Make `destination` mean what `source` means: its recipe again, or a recipe of nothing but it."""

        def make() -> str:
            ref = names.resolve(source, home=self.home, paths=False)
            recipe = store.load(self.home, ref.name).recipe if ref.source == "created" else Modelfile(base=ref.name)
            return self._create(destination, recipe, is_copy=True)

        return await asyncio.to_thread(make)

    async def remove(self, name: str) -> None:
        """Remove the files of a downloaded model or the recipe of a created one; raises `UnknownModel`."""
        await asyncio.to_thread(self._remove, name)

    def _recipe(self, name: str) -> Recipe | None:
        if not store.has(self.home, name):
            return None
        found = store.load(self.home, name).recipe
        # Where files lie on this machine is not a client's business.
        adapters = tuple(Path(adapter).name for adapter in found.adapters)
        found = dataclasses.replace(found, base=_shown(found.base), adapters=adapters)
        return Recipe(
            modelfile=render(found),
            parent=found.base,
            system=found.system,
            parameters=tuple((_SPELLING[name], value) for name, value in found.parameters),
            messages=found.messages,
        )

    def _create(self, name: str, recipe: Modelfile, *, is_copy: bool = False) -> str:
        ids.check_created(name)
        if embedded.find(name) is not None or catalog.find(name) is not None:
            raise InvalidRequest(f"{name} is a model already known; choose another name for yours", param="model")
        if not is_copy:
            # A recipe from outside names models; only a person at this machine names files.
            if recipe.adapters:
                raise InvalidRequest(
                    "adapters are files of the server's machine; use `llama create` there", param="adapters"
                )
            names.resolve(recipe.base, home=self.home, paths=False)
        return store.save(self.home, name, recipe).name

    def _remove(self, name: str) -> None:
        ref = names.resolve(name, home=self.home, paths=False)
        if ref.source == "embedded":
            raise InvalidRequest(f"{ref.name} is part of llamakit and goes with it", param="model")
        if ref.source == "created":
            store.remove(self.home, ref.name)
            return
        for repo in ref.repos:
            snapshot = cache.find_snapshot(self.hub, repo, ref.revision)
            if snapshot is None:
                continue
            if ref.quant is None:
                cache.remove_repo(self.hub, repo)
                return
            if files := cache.pick_gguf(snapshot.files, ref.quant):
                cache.remove_files(self.hub, snapshot, files)
                return
        raise UnknownModel(f"{ref.name} is not on this machine. See what is: llama list", name=ref.name)


def _shown(base: str) -> str:
    return Path(base).name if base.startswith((".", "/", "~")) else base
