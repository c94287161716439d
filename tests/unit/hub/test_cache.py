"""The hub's cache, created models and where a name leads on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.fakehub import COMMIT, fill_cache

from llamakit.core.errors import CheckpointError, InvalidRequest, UnknownModel
from llamakit.hub import cache, embedded, store
from llamakit.hub.locate import present, resolve_model
from llamakit.hub.modelfile import Modelfile

INDEX = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})
SHARDED = {
    "config.json": b"{}",
    "model.safetensors.index.json": INDEX.encode(),
    "model-00001-of-00002.safetensors": b"1" * 2000,
    "model-00002-of-00002.safetensors": b"2" * 3000,
}


@pytest.fixture(autouse=True)
def _embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "ROOT", tmp_path / "embedded")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({"HF_HUB_CACHE": "/a"}, "/a"),
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({}, os.path.expanduser("~/.cache/huggingface/hub")),
    ],
)
def test_the_cache_is_where_the_hubs_library_keeps_it(environ: dict[str, str], place: str) -> None:
    assert cache.hub_cache(environ) == Path(place)


def test_a_whole_model_is_found_by_each_of_its_names(hub: Path, home: Path) -> None:
    snapshot = fill_cache(hub, "unsloth/Llama-3.2-1B-Instruct", {"config.json": b"{}", "model.safetensors": b"w"})
    for name in ("llama3.2:1b", "unsloth/Llama-3.2-1B-Instruct", f"unsloth/Llama-3.2-1B-Instruct@{COMMIT[:8]}"):
        located = resolve_model(name, home=home, hub=hub)
        assert located.path == snapshot == Path(located)
    assert located.prompt_format == "llama3.2"
    with pytest.raises(UnknownModel, match=r"Get it with `llama pull meta-llama/Llama-3.2-1B-Instruct`"):
        resolve_model("meta-llama/Llama-3.2-1B-Instruct", home=home, hub=hub)


def test_missing_shards_are_noticed(hub: Path, home: Path) -> None:
    snapshot = fill_cache(hub, "a/b", SHARDED)
    assert resolve_model("a/b", home=home, hub=hub).path == snapshot
    (snapshot / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UnknownModel, match=r"a/b is here in part only. Get the rest with `llama pull a/b`"):
        resolve_model("a/b", home=home, hub=hub)


@pytest.mark.parametrize("index", [b"", b"[]", b'{"weight_map": 3}', b"{" * 10000, b'{"weight_map": {}}'])
def test_a_damaged_index_is_not_a_model(hub: Path, home: Path, index: bytes) -> None:
    fill_cache(hub, "a/b", SHARDED | {"model.safetensors.index.json": index})
    with pytest.raises(UnknownModel, match="in part only"):
        resolve_model("a/b", home=home, hub=hub)


def test_gguf_files_are_picked_by_quantisation(hub: Path, home: Path) -> None:
    repo = "bartowski/Llama-3.2-1B-Instruct-GGUF"
    snapshot = fill_cache(hub, repo, {"Llama-3.2-1B-Instruct-Q4_K_M.gguf": b"4"})
    assert resolve_model("llama3.2:1b", home=home, hub=hub).path.name == "Llama-3.2-1B-Instruct-Q4_K_M.gguf"
    fill_cache(hub, repo, {"Llama-3.2-1B-Instruct-Q8_0.gguf": b"8"})
    assert resolve_model("llama3.2:1b-q8_0", home=home, hub=hub).path == snapshot / "Llama-3.2-1B-Instruct-Q8_0.gguf"
    with pytest.raises(InvalidRequest, match=r"several GGUF files are here, say which: .*:Q4_K_M, .*:Q8_0"):
        resolve_model(repo, home=home, hub=hub)
    with pytest.raises(UnknownModel, match="in part only"):
        resolve_model(f"{repo}:Q6_K", home=home, hub=hub)


@pytest.mark.parametrize(
    ("file", "quant"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("llama-2-7b.Q5_K_S.gguf", "Q5_K_S"),
        ("x-f16.gguf", "F16"),
        ("sub/x-BF16-00001-of-00003.gguf", "BF16"),
        ("x-IQ4_XS.gguf", "IQ4_XS"),
        ("model.gguf", None),
        ("q4.gguf", None),
    ],
)
def test_quantisations_in_file_names(file: str, quant: str | None) -> None:
    assert cache.quant_of(file) == quant


def test_metas_own_layout_is_found(hub: Path, home: Path) -> None:
    files = {"original/params.json": b"{}", "original/consolidated.00.pth": b"p"}
    snapshot = fill_cache(hub, "meta-llama/Llama-3.2-1B", files)
    assert resolve_model("Llama3.2-1B", home=home, hub=hub).path == snapshot / "original"


def test_a_known_model_that_cannot_run_says_why(hub: Path, home: Path) -> None:
    with pytest.raises(UnknownModel, match="known but cannot run here: image input"):
        resolve_model("llama3.2-vision", home=home, hub=hub)


def test_the_branch_decides_among_commits(hub: Path) -> None:
    old, new = "1" * 40, "2" * 40
    fill_cache(hub, "a/b", {"config.json": b"old"}, commit=old, ref="v1")
    fill_cache(hub, "a/b", {"config.json": b"new"}, commit=new)
    fill_cache(hub, "a/b", {"config.json": b"oldest"}, commit="3" * 40, ref="v0")
    found = {ref: cache.find_snapshot(hub, "a/b", ref) for ref in (None, "v1", "1111111", "nope", "../refs/main")[:4]}
    commits = {ref: snapshot.commit if snapshot else None for ref, snapshot in found.items()}
    assert commits == {None: new, "v1": old, "1111111": old, "nope": None}


def test_created_models_stand_on_others(hub: Path, home: Path) -> None:
    snapshot = fill_cache(hub, "a/b", SHARDED)
    store.save(home, "terse", Modelfile(base="a/b", system="Be terse.", parameters=(("temperature", 0.5),)))
    store.save(home, "terse-cold", Modelfile(base="terse", parameters=(("temperature", 0.0),)))
    located = resolve_model("terse-cold", home=home, hub=hub)
    assert located.path == snapshot
    assert located.recipe is not None and located.recipe.system == "Be terse."
    assert located.recipe.sampling() == {"temperature": 0.0}
    store.save(home, "loop", Modelfile(base="loop"))
    with pytest.raises(InvalidRequest, match="built on itself"):
        resolve_model("loop", home=home, hub=hub)


def test_a_created_model_speaks_the_format_of_its_base(hub: Path, home: Path, tmp_path: Path) -> None:
    directory = tmp_path / "embedded" / "cria"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    (directory / "card.json").write_text('{"prompt_format": "llama3.2"}')
    store.save(home, "mine", Modelfile(base="cria"))
    store.save(home, "more", Modelfile(base="mine"))
    for name in ("cria", "mine", "more"):
        assert resolve_model(name, home=home, hub=hub).prompt_format == "llama3.2"


def test_created_models_are_listed_replaced_and_removed(home: Path) -> None:
    assert store.names(home) == []
    store.save(home, "b", Modelfile(base="x"))
    store.save(home, "a:v1", Modelfile(base="x"))
    store.save(home, "a:v1", Modelfile(base="y"))
    assert store.names(home) == ["a:v1", "b"]
    assert store.load(home, "a:v1").recipe.base == "y"
    store.remove(home, "a:v1")
    assert store.names(home) == ["b"] and not (home / "models" / "a").exists()
    with pytest.raises(UnknownModel):
        store.remove(home, "a:v1")
    (home / "models" / "b" / "latest.json").write_text("{")
    with pytest.raises(InvalidRequest, match="is not JSON"):
        store.load(home, "b")
    store.save(home, "whole", Modelfile(base="x"))
    assert [(line.name, line.format) for line in present(home=home, hub=home)] == [
        ("b", "damaged"),
        ("whole", "from x"),
    ]


def test_the_list_shows_everything_once(hub: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "embedded" / "cria").mkdir(parents=True)
    (tmp_path / "embedded" / "cria" / "config.json").write_text("{}")
    (tmp_path / "embedded" / "cria" / "card.json").write_text("{}")
    store.save(home, "mario", Modelfile(base="cria"))
    weights = {"config.json": b"{}", "model.safetensors": b"w" * 50}
    fill_cache(hub, "meta-llama/Llama-3.2-1B-Instruct", weights)
    fill_cache(hub, "unsloth/Llama-3.2-1B-Instruct", weights)
    fill_cache(hub, "bartowski/Llama-3.2-1B-Instruct-GGUF", {"Llama-3.2-1B-Instruct-Q8_0.gguf": b"8"})
    fill_cache(hub, "who/ever", {"readme.md": b"not a model"})
    lines = {line.name: line for line in present(home=home, hub=hub)}
    assert list(lines) == [
        "cria",
        "mario",
        "llama3.2:1b-instruct-q8_0",
        "llama3.2:1b-instruct",
        f"unsloth/Llama-3.2-1B-Instruct@{COMMIT[:12]}",
    ]
    assert lines["llama3.2:1b-instruct"].size_bytes == 52
    for name in lines:
        assert resolve_model(name, home=home, hub=hub)


def test_removing_takes_only_what_was_named(hub: Path) -> None:
    fill_cache(hub, "a/b", {"x-Q4_0.gguf": b"4" * 2000, "x-Q8_0.gguf": b"8" * 3000, "config.json": b"{}"})
    fill_cache(hub, "c/d", {"config.json": b"{}"})
    snapshot = cache.find_snapshot(hub, "a/b")
    assert snapshot is not None
    assert cache.remove_files(hub, snapshot, ["x-Q4_0.gguf"]) == 2000
    left = cache.find_snapshot(hub, "a/b")
    assert left is not None and left.files == ("config.json", "x-Q8_0.gguf")
    with pytest.raises(InvalidRequest):
        cache.remove_files(hub, left, ["../../../../c"])
    assert cache.remove_repo(hub, "a/b") > 3000
    assert cache.find_snapshot(hub, "a/b") is None and cache.find_snapshot(hub, "c/d") is not None
    with pytest.raises(UnknownModel):
        cache.remove_repo(hub, "a/b")


def test_removing_follows_no_link_out_of_the_cache(hub: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    hub.mkdir()
    (hub / "models--a--b").symlink_to(tmp_path / "precious")
    with pytest.raises((InvalidRequest, UnknownModel)):
        cache.remove_repo(hub, "a/b")
    snapshot = fill_cache(hub, "c/d", {"config.json": b"{}"})
    (snapshot / "link.gguf").symlink_to(tmp_path / "precious" / "file")
    found = cache.find_snapshot(hub, "c/d")
    assert found is not None
    cache.remove_files(hub, found, ["link.gguf"])
    assert (tmp_path / "precious" / "file").read_text() == "x"


def test_the_card_of_a_damaged_package(tmp_path: Path) -> None:
    directory = tmp_path / "embedded" / "cria"
    directory.mkdir(parents=True)
    assert embedded.names() == [] and embedded.find("cria") is None
    for text in (None, "{", "[]"):
        if text is not None:
            (directory / "card.json").write_text(text)
        with pytest.raises(CheckpointError, match="reinstall"):
            embedded.card(directory)
    assert "model.safetensors" in embedded.missing_files(directory)
