"""The page on distributions keeps its promises: its file is one, and its sections and names are those there are."""

from __future__ import annotations

import re
from pathlib import Path

from llamakit.providers.specs import Api
from llamakit.stack.build import build_stack
from llamakit.stack.distribution_file import Source, read, sections, shipped

PAGE = (Path(__file__).parents[2] / "docs" / "distributions.md").read_text(encoding="utf-8")


def test_its_file_is_a_distribution():
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    made = read(Source(name="lab", place="lab.yaml", text=text), {"TOGETHER_API_KEY": "sk-together"})
    assert [row.provider_id for row in made.of(Api.inference)] == ["here", "lab", "together"]
    table = {row.entry.provider_id: row.entry.provider_type for row in build_stack(made).providers.entries}
    shown = dict(re.findall(r"^(?:inference|tools|safety)  +(\S+) +(\S+)$", PAGE, re.M))
    assert {**shown, "together": "remote::together"} == table


def test_every_section_and_every_shipped_name_is_told():
    told = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE, re.M))))
    assert set(sections()) <= told
    assert set(shipped()) <= set(re.findall(r"^([a-z-]+)  +[A-Z]", PAGE, re.M))
