from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from llamakit.core.errors import ConfigError
from llamakit.kernels import native
from llamakit.kernels.cpu import build
from llamakit.kernels.cpu.library import Library, dense_matrix
from llamakit.kernels.matmul import linear


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that has not asked for kernels yet."""
    monkeypatch.setattr(native, "_Choice", type("_Choice", (), {"made": False, "library": None, "threads": None}))
    monkeypatch.setattr(native, "_loaded", [])
    monkeypatch.delenv("LLAMA_KERNELS", raising=False)
    monkeypatch.delenv("LLAMA_THREADS", raising=False)
    return monkeypatch


def test_missing_library_is_said_once(
    undecided: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    undecided.setattr(native, "HERE", tmp_path)
    with caplog.at_level(logging.WARNING):
        assert native.level() == "reference"
        with torch.no_grad():
            linear(torch.ones(1, 2), torch.ones(3, 2))
    assert len(caplog.records) == 1
    assert "python -m llamakit.kernels.cpu.build" in caplog.text


def test_a_library_that_is_none_is_said_and_passed_over(
    undecided: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / build.library_name()).write_bytes(b"not a library")
    undecided.setattr(native, "HERE", tmp_path)
    assert native.library() is None
    assert "no compiled CPU kernels" in caplog.text


@pytest.mark.parametrize("wanted", ["native", "avx2"])
def test_asking_for_kernels_that_are_not_there_is_an_error(
    undecided: pytest.MonkeyPatch, tmp_path: Path, wanted: str
) -> None:
    undecided.setattr(native, "HERE", tmp_path)
    undecided.setenv("LLAMA_KERNELS", wanted)
    with pytest.raises(ConfigError, match=f"LLAMA_KERNELS={wanted} wants the compiled CPU kernels"):
        native.library()


def test_unknown_words_are_refused(undecided: pytest.MonkeyPatch) -> None:
    undecided.setenv("LLAMA_KERNELS", "fastest")
    with pytest.raises(ConfigError, match="reference, native or one of amx"):
        native.library()
    undecided.setenv("LLAMA_KERNELS", "reference")
    undecided.setenv("LLAMA_THREADS", "0")
    with pytest.raises(ConfigError, match="LLAMA_THREADS wants a number from 1 to 256"):
        native.library()


def test_a_flag_is_0_or_1(library: Library, undecided: pytest.MonkeyPatch) -> None:
    undecided.setenv("LLAMA_PIN_THREADS", "yes")
    with pytest.raises(ConfigError, match="LLAMA_PIN_THREADS wants 0 or 1, got 'yes'"):
        native.library()


@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="needs two processors, on Linux")
@pytest.mark.parametrize("pinned", ["0", "1"])
def test_threads_stay_at_a_processor_of_their_own_when_told_so(library: Library, pinned: str) -> None:
    program = """
import os, torch
from llamakit.kernels import native
from llamakit.kernels.matmul import linear
with torch.no_grad(), native.using("native", threads=2):
    linear(torch.randn(64, 512), torch.randn(4096, 512))
print(sorted(len(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task"))[0])
"""
    environment = os.environ | {"LLAMA_PIN_THREADS": pinned}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    assert (int(done.stdout) == 1) is (pinned == "1")


def test_pytorch_keeps_its_threads_back_while_kernels_compute(library: Library) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with native.kernels_only():
            assert (torch.get_num_threads(), native.num_threads()) == (1, 3)
        assert (torch.get_num_threads(), native.num_threads()) == (3, 3)
        with native.using("reference"), native.kernels_only():
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_levels_of_other_processors_are_refused(library: Library) -> None:
    missing = [name for name in native.LEVELS if name not in library.levels]
    for name in missing:
        with pytest.raises(ConfigError, match="has no level"), native.using(name):
            pass
    with pytest.raises(ValueError, match="'mmx' is not among"):
        library.select("mmx")


def test_settings_are_read(library: Library, undecided: pytest.MonkeyPatch) -> None:
    undecided.setenv("LLAMA_KERNELS", "portable")
    undecided.setenv("LLAMA_THREADS", "3")
    best = library.levels[0]
    try:
        assert native.level() == "portable"
        assert native.num_threads() == 3
    finally:
        library.select(best)


def test_using_puts_everything_back(library: Library) -> None:
    before = native.level(), native.num_threads()
    with native.using("portable", threads=7):
        assert (native.level(), native.num_threads()) == ("portable", 7)
        with native.using("reference"):
            assert native.level() == "reference"
        assert native.level() == "portable"
    assert (native.level(), native.num_threads()) == before


@torch.no_grad()
def test_callers_on_many_threads_do_not_disturb_each_other(library: Library) -> None:
    xs = [torch.randn(20, 300) for _ in range(4)]
    weight = torch.randn(400, 300)
    expected = [linear(x, weight) for x in xs]
    wrong: list[int] = []

    def work(index: int) -> None:
        with torch.no_grad():
            for _ in range(30):
                if not torch.equal(library.linear(xs[index], dense_matrix(weight), 3), expected[index]):
                    wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


FORKED = """
import os, torch
from llamakit.kernels import native
from llamakit.kernels.cpu.library import dense_matrix
library = native.library()
x, weight = torch.randn(20, 300), torch.randn(400, 300)
expected = library.linear(x, dense_matrix(weight), 2)
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(library.linear(x, dense_matrix(weight), 2), expected) else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_threads_of_its_own(library: Library) -> None:
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)
