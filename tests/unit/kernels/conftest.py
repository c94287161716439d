"""The levels of compiled kernels this machine can run, one test each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llamakit.kernels import native
from llamakit.kernels.cpu.library import Library


@pytest.fixture
def library() -> Library:
    """The compiled kernels."""
    found = native.library()
    if found is None:
        pytest.skip("no compiled kernels here; build them with `python -m llamakit.kernels.cpu.build`")
    return found


@pytest.fixture(params=native.LEVELS)
def level(request: pytest.FixtureRequest, library: Library) -> Iterator[Library]:
    """The compiled kernels at one level."""
    if request.param not in library.levels:
        pytest.skip(f"this processor or build has no level {request.param}")
    with native.using(request.param):
        yield library
