"""Settings: their one order, where values came from, and what is refused."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.core.config import (
    Duration,
    Secret,
    Settings,
    config_path,
    data_home,
    field_docs,
    load,
    misspelt_variables,
    nearest,
)
from llamakit.core.errors import ConfigError

MINUTE = Duration(60)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kinds:
    """One field of every kind that is supported."""

    text: str = "a"
    count: int = 1
    share: float = 0.5
    is_on: bool = False
    place: Path | None = None
    key: Secret | None = None
    wait: Duration = MINUTE
    word: Literal["red", "blue"] = "red"
    maybe: int | None = None


def test_later_sources_win_and_each_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('text = "file"\ncount = 2\nshare = 0.25\n')
    environ = {"LLAMA_COUNT": "3", "LLAMA_SHARE": "0.75"}
    loaded = load(Kinds, file=file, environ=environ, flags={"share": 1.0, "word": None})
    assert (loaded.value.text, loaded.value.count, loaded.value.share) == ("file", 3, 1.0)
    assert loaded.sources["text"] == str(file)
    assert loaded.sources["count"] == "LLAMA_COUNT"
    assert loaded.sources["share"] == "flag"
    assert loaded.sources["word"] == "default"


def test_every_kind_is_read_from_the_environment() -> None:
    environ = {
        "LLAMA_TEXT": "b",
        "LLAMA_COUNT": "7",
        "LLAMA_SHARE": "2",
        "LLAMA_IS_ON": "yes",
        "LLAMA_PLACE": "~/x",
        "LLAMA_KEY": "s3cret",
        "LLAMA_WAIT": "1.5h",
        "LLAMA_WORD": "blue",
        "LLAMA_MAYBE": "none",
    }
    value = load(Kinds, environ=environ).value
    assert value == Kinds(
        text="b",
        count=7,
        share=2.0,
        is_on=True,
        place=Path("~/x").expanduser(),
        key=Secret("s3cret"),
        wait=Duration(5400),
        word="blue",
    )
    assert "s3cret" not in f"{value} {value.key!r} {value.key}"


def test_every_kind_is_read_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('is_on = true\nwait = "5m"\nkey = "k"\nplace = "/x"\nword = "blue"\nshare = 1\nmaybe = 4\n')
    value = load(Kinds, file=file, environ={}).value
    assert (value.is_on, value.wait, value.place, value.word, value.share, value.maybe) == (
        True, Duration(300), Path("/x"), "blue", 1.0, 4,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ("coutn = 3", "unknown setting 'coutn' in file .*nearest: 'count'"),
        ('count = "3"', "count must be an integer, got '3'"),
        ("count = true", "count in .* must be an integer, got True"),
        ("is_on = 1", "is_on in .* must be true or false, got 1"),
        ('word = "green"', "word must be one of red, blue, got 'green'"),
        ('wait = "soon"', "wait must be a duration such as 5m, got 'soon'"),
        ("text = [1]", r"text in .* must be text, got \[1\]"),
        ("= 3", "is not TOML"),
    ],
)
def test_a_bad_file_is_refused_with_the_reason(tmp_path: Path, toml: str, complaint: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(toml)
    with pytest.raises(ConfigError, match=complaint):
        load(Kinds, file=file, environ={})


@pytest.mark.parametrize(("name", "text"), [("COUNT", "many"), ("IS_ON", "perhaps"), ("WORD", "green"), ("SHARE", "x")])
def test_a_bad_variable_is_named(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"LLAMA_{name} must be .* got '{text}'"):
        load(Kinds, environ={f"LLAMA_{name}": text})


def test_unknown_flag_and_oversized_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown setting 'txet' in the flags; nearest: 'text'"):
        load(Kinds, environ={}, flags={"txet": 1})
    big = tmp_path / "config.toml"
    big.write_text("#" * (1 << 20) + "\n")
    with pytest.raises(ConfigError, match="at most 1048576"):
        load(Kinds, file=big, environ={})


def test_variables_of_other_programs_are_left_alone_but_slips_are_found() -> None:
    environ = {"LLAMA_ARG_CTX_SIZE": "1", "LLAMA_PROT": "80", "LLAMA_PORT": "81"}
    assert load(Settings, environ=environ).value.port == 81
    assert misspelt_variables(Settings, environ) == {"LLAMA_PROT": "LLAMA_PORT"}


def test_settings_refuse_values_that_cannot_work() -> None:
    for name, text in [("PORT", "70000"), ("CONTEXT", "0"), ("THREADS", "-1"), ("ENDPOINT", "ftp://x")]:
        with pytest.raises(ConfigError, match=name.lower()):
            load(Settings, environ={f"LLAMA_{name}": text})


def test_every_setting_is_documented() -> None:
    assert set(field_docs(Settings)) == {field.name for field in fields(Settings)}


def test_places_follow_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_path({"LLAMA_CONFIG": "/c/x.toml"}) == Path("/c/x.toml")
    assert config_path({"LLAMA_HOME": "/h"}) == Path("/h/config.toml")
    assert config_path({}).name == "config.toml"
    (tmp_path / "config.toml").write_text(f'home = "{tmp_path}/elsewhere"\n')
    assert data_home({"LLAMA_CONFIG": str(tmp_path / "config.toml")}) == tmp_path / "elsewhere"
    assert data_home({"LLAMA_HOME": "/h"}) == Path("/h")
    monkeypatch.setenv("LLAMA_PORT", "82")
    assert os.environ["LLAMA_PORT"] == "82" and load(Settings).value.port == 82


@given(st.integers(1, 10**6), st.sampled_from(["s", "m", "h", "d"]))
@settings(deadline=None, max_examples=50)
def test_durations_survive_printing(number: int, unit: str) -> None:
    duration = Duration.parse(f"{number}{unit}")
    assert Duration.parse(str(duration)) == duration


def test_durations_without_end_and_nonsense() -> None:
    assert str(Duration.parse("-1")) == "forever"
    assert Duration.parse("250ms") == 0.25
    for text in ("", "m", "5 minutes", "nan", "1e9"):
        with pytest.raises(ConfigError):
            Duration.parse(text)


def test_nearest_says_nothing_when_nothing_is_near() -> None:
    assert nearest("temprature", ["temperature", "top_p"]) == "; nearest: 'temperature'"
    assert nearest("zzz", ["temperature"]) == ""
