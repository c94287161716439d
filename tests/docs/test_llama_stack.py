"""The page about Llama Stack's clients names paths that are there, and every group of them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.serving import echo_app

from llamakit.server.app import operations_of

PAGE = (Path(__file__).parents[2] / "docs" / "llama-stack.md").read_text(encoding="utf-8")


def test_every_path_it_names_is_served_and_no_group_is_left_out() -> None:
    operations = operations_of(echo_app())
    served = {operation.path.replace(":path}", "}") for operation in operations}
    named = set(re.findall(r"`(/v1[^`*]*)`", PAGE)) - {"/v1alpha/admin"}
    assert named and named <= served, sorted(named - served)
    tags = {operation.tag for operation in operations if operation.tag.startswith("llama stack")}
    told = {operation.tag for operation in operations if operation.path.replace(":path}", "}") in named}
    assert tags <= told, sorted(tags - told)
