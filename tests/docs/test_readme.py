"""The README keeps its promises: two one-line commands, links that lead somewhere, commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llamakit.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_quick_start_has_two_commands_of_one_line() -> None:
    section = README.split("## Quick start")[1].split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)\n```", section, re.S)
    assert len(blocks) == 2
    assert all("\n" not in block for block in blocks)
    assert "llama run" in blocks[0]
    assert "pytest" in blocks[1]


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "NOTICE.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (ROOT / target).exists(), f"{page} links to {target}"


def test_every_command_it_names_exists() -> None:
    named = set(re.findall(r"(?:^|[`/ ])llama ([a-z]+)\b", README, re.M))
    assert {"run", "serve", "pull"} <= named
    assert not named - set(COMMANDS), "README names commands that do not exist"
