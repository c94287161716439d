"""The models of one machine as a server changes them; the road over HTTP is in `flows`."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from llamakit.core.errors import DownloadError, InvalidRequest, Overloaded, UnknownModel
from llamakit.hub import download, store
from llamakit.hub.download import Progress
from llamakit.hub.modelfile import Modelfile
from llamakit.stack.library import MAX_PULLS, Library

NAME = "someone/llama"


@pytest.fixture
def library(tmp_path):
    return Library(home=tmp_path / "home", hub=tmp_path / "hub")


class Download:
    """Stands in for the hub: moves until it is stopped."""

    def __init__(self) -> None:
        self.moved = 0
        self.ended_by: BaseException | None = None
        self.has_ended = threading.Event()

    def __call__(self, ref, *, progress, **_):
        try:
            while self.moved < 10_000:
                self.moved += 1
                progress(Progress(file="weights", done=self.moved, total=10_000))
                time.sleep(0.001)
        except BaseException as raised:
            self.ended_by = raised
            raise
        finally:
            self.has_ended.set()


async def test_who_leaves_stops_the_download(library, monkeypatch):
    running = Download()
    monkeypatch.setattr(download, "pull", running)
    steps = library.pull(NAME)
    first = await anext(steps)
    assert isinstance(first, Progress) and (await anext(steps)).done > first.done
    await steps.aclose()
    assert await asyncio.to_thread(running.has_ended.wait, 5)
    assert running.ended_by is not None and running.moved < 10_000


async def test_downloads_are_counted(library, monkeypatch):
    monkeypatch.setattr(download, "pull", Download())
    open_pulls = [library.pull(NAME) for _ in range(MAX_PULLS)]
    for steps in open_pulls:
        await anext(steps)
    with pytest.raises(Overloaded, match="downloads run already"):
        await anext(library.pull(NAME))
    for steps in open_pulls:
        await steps.aclose()
    again = library.pull(NAME)
    await anext(again)
    await again.aclose()


async def test_a_download_that_fails_says_so(library, monkeypatch):
    def failing(ref, **_):
        raise DownloadError("the hub is on fire")

    monkeypatch.setattr(download, "pull", failing)
    with pytest.raises(DownloadError, match="on fire"):
        await anext(library.pull(NAME))


async def test_where_files_lie_is_not_told(library, tmp_path):
    store.save(library.home, "mine", Modelfile(base=f"{tmp_path}/secret/model.gguf", adapters=(f"{tmp_path}/a.bin",)))
    recipe = await library.recipe("mine")
    assert str(tmp_path) not in recipe.modelfile and recipe.parent == "model.gguf"
    assert await library.recipe("nobody") is None


async def test_names_only(library):
    with pytest.raises(UnknownModel, match="not by path"):
        await library.create("new", Modelfile(base="/etc/passwd"))
    with pytest.raises(UnknownModel, match="not by path"):
        await library.copy("./x", "new")
    with pytest.raises(UnknownModel, match="not by path"):
        await library.remove("../../etc")
    with pytest.raises(InvalidRequest, match="lower-case"):
        await library.create("../up", Modelfile(base="llama3.2:1b"))
    with pytest.raises(UnknownModel, match="not on this machine"):
        await library.remove("llama3.2:1b")
    assert not (library.home / "models").exists()


async def test_a_copy_means_the_same(library):
    await library.create("mario", Modelfile(base="llama3.2:1b", system="You are Mario."))
    assert await library.copy("mario", "luigi:v2") == "luigi:v2"
    assert (await library.recipe("luigi:v2")).system == "You are Mario."
    await library.copy("llama3.2:1b", "plain")
    assert (await library.recipe("plain")).parent == "llama3.2:1b-instruct"
