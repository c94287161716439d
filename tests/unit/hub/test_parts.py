"""Names of GGUF models in several files, and where such a model is found, fetched, listed and removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fakehub import fill_cache

from llamakit.core.errors import DownloadError, InvalidRequest, UnknownModel
from llamakit.hub import cache
from llamakit.hub.locate import present, resolve_model
from llamakit.hub.parts import Part, all_parts, missing_parts, models_among, part_of
from llamakit.hub.selection import choose_files

THREE = [f"big/x-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]


def test_what_a_name_says() -> None:
    assert part_of("a-00002-of-00003.gguf") == Part("a", 2, 3)
    for name in ("a.gguf", "a-00000-of-00003.gguf", "a-00004-of-00003.gguf", "a-00001-of-99999.gguf", "a-1-of-3.gguf"):
        assert part_of(name) is None and all_parts(name) == [name]
    assert all_parts(THREE[1]) == THREE


def test_models_are_whole_files_and_complete_sets() -> None:
    assert models_among([*THREE, "y.gguf", "z-00001-of-00002.gguf", "note.txt"]) == [THREE[0], "y.gguf"]
    assert missing_parts([THREE[1], "y.gguf"]) == [THREE[0], THREE[2]]


def test_all_parts_are_fetched() -> None:
    assert choose_files("a/b", [*THREE, "x-Q4_K_M.gguf"], quant="Q8_0") == THREE
    assert choose_files("a/b", THREE) == THREE
    nameless = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert choose_files("a/b", nameless) == nameless
    assert choose_files("a/b", [*THREE, "x-Q8_0.gguf"], quant="Q8_0") == ["x-Q8_0.gguf"]
    with pytest.raises(DownloadError, match=f"a/b has Q8_0 in parts and lacks some: {THREE[0]}"):
        choose_files("a/b", THREE[1:], quant="Q8_0")


def test_parts_in_the_cache(tmp_path: Path) -> None:
    hub, home = tmp_path / "hub", tmp_path / "home"
    fill_cache(hub, "a/b", {name: str(i).encode() * 1000 for i, name in enumerate(THREE[:2])})
    with pytest.raises(UnknownModel, match="in part only"):
        resolve_model("a/b:Q8_0", home=home, hub=hub)
    path = fill_cache(hub, "a/b", {THREE[2]: b"2" * 1000})
    assert resolve_model("a/b:Q8_0", home=home, hub=hub).path == path / THREE[0]
    assert resolve_model("a/b", home=home, hub=hub).path == path / THREE[0]
    (line,) = [line for line in present(home=home, hub=hub) if line.source == "a/b"]
    assert (line.format, line.size_bytes, line.path) == ("Q8_0", 3000, path / THREE[0])
    snapshot = cache.find_snapshot(hub, "a/b")
    assert snapshot is not None and cache.pick_gguf(snapshot.files, "Q8_0") == THREE


def test_parts_in_a_directory(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    names = [Path(name).name for name in THREE]
    for name in names[:2]:
        (folder / name).write_bytes(b"GGUF")
    with pytest.raises(InvalidRequest, match=f"in parts and lacks {names[2]}"):
        resolve_model(str(folder))
    (folder / names[2]).write_bytes(b"GGUF")
    assert resolve_model(str(folder)).path == folder / names[0]
    (folder / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(InvalidRequest, match="holds 2 GGUF models"):
        resolve_model(str(folder))
