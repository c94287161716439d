"""The groups of OpenAI's API that are described as published: no operation of theirs is missing, and no property."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "openapi_coverage.py"
GROUPS = (
    "batches",
    "chat",
    "completions",
    "conversations",
    "embeddings",
    "files",
    "models",
    "moderations",
    "responses",
    "uploads",
    "vector_stores",
)


@pytest.fixture(scope="module")
def measured():
    spec = importlib.util.spec_from_file_location("openapi_coverage", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = script  # its dataclasses look their module up
    spec.loader.exec_module(script)
    return script, script.measure(script.document())[0]


def test_every_operation_is_there(measured):
    script, tallies = measured
    assert set(tallies) == set(script.GROUPS) == set(GROUPS)
    assert {name: tally.missing_operations for name, tally in tallies.items() if tally.missing_operations} == {}
    assert all(tally.properties for tally in tallies.values())


@pytest.mark.parametrize("group", GROUPS)
def test_properties_are_there(measured, group):
    assert not measured[1][group].missing_properties
