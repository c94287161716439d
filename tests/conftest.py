"""What every test may rely on: one thread a worker, a data home, and logging as it was before the test."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

pytest_plugins = ("tests.route_coverage",)

# Small models gain nothing from threads, and several workers would fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def a_data_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Servers keep their rows under the data home by default; that of whoever runs the tests is left alone."""
    if "LLAMA_HOME" in os.environ:
        yield
        return
    os.environ["LLAMA_HOME"] = str(tmp_path_factory.mktemp("home"))
    yield
    del os.environ["LLAMA_HOME"]


@pytest.fixture(autouse=True)
def logging_is_restored() -> Iterator[None]:
    """Commands that run in process set up the log; the next test must find it untouched."""
    names = ["llamakit", *(name for name in logging.root.manager.loggerDict if name.startswith("llamakit."))]
    before = {name: _state(logging.getLogger(name)) for name in names}
    root = _state(logging.root)
    yield
    for name in [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "llamakit"]:
        _restore(logging.getLogger(name), before.get(name, (logging.NOTSET, True, False, ())))
    _restore(logging.root, root)


def _state(logger: logging.Logger) -> tuple[int, bool, bool, tuple[logging.Handler, ...]]:
    return logger.level, logger.propagate, logger.disabled, tuple(logger.handlers)


def _restore(logger: logging.Logger, state: tuple[int, bool, bool, tuple[logging.Handler, ...]]) -> None:
    logger.setLevel(state[0])
    logger.propagate, logger.disabled = state[1], state[2]
    logger.handlers[:] = list(state[3])
