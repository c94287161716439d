"""list, pull, show, rm, create and Meta's verbs, over a cache and a hub of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakehub import COMMIT, FakeHub, Repo, fill_cache

from llamakit.hub import embedded, fetch, store
from llamakit.hub.modelfile import Modelfile

WEIGHTS = bytes(range(256)) * 40
FILES = {"config.json": b'{"model_type": "llama"}', "model.safetensors": WEIGHTS, "tokenizer.json": b"{}"}
MIRROR = "unsloth/Llama-3.2-1B-Instruct"
GGUF = "bartowski/Llama-3.2-1B-Instruct-GGUF"


@pytest.fixture
def hub(world: Path) -> Path:
    """A cache with one whole model and two GGUF files."""
    fill_cache(world / "hub", MIRROR, FILES)
    files = {f"Llama-3.2-1B-Instruct-{quant}.gguf": quant.encode() * 500 for quant in ("Q4_K_M", "Q8_0")}
    fill_cache(world / "hub", GGUF, files)
    return world / "hub"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, world: Path) -> Iterator[FakeHub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(world / "no-token"))
    monkeypatch.setattr(fetch, "_sleep", lambda seconds: None)
    with FakeHub() as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        fake.repos["a/b"] = Repo(dict(FILES))
        yield fake


def test_list_shows_what_is_here(llama, hub: Path) -> None:
    result = llama("list")
    assert [line.split()[0] for line in result.stdout.splitlines()] == [
        "NAME", "llama3.2:1b-instruct-q4_k_m", "llama3.2:1b-instruct-q8_0", "llama3.2:1b-instruct",
    ]  # fmt: skip
    assert "\x1b" not in result.stdout, "no colour in a pipe"
    assert llama("list", "-q").stdout.split() == [line.split()[0] for line in result.stdout.splitlines()[1:]]
    data = json.loads(llama("list", "--json").stdout)
    assert data[2]["source"] == MIRROR and data[2]["size_bytes"] > len(WEIGHTS)


def test_an_empty_list_says_what_to_do(llama) -> None:
    result = llama("list")
    assert result.stdout == "" and "llama pull llama3.2:1b" in result.stderr
    assert json.loads(llama("list", "--json").stdout) == []


def test_list_all_is_the_catalog(llama, hub: Path) -> None:
    result = llama("list", "--all")
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert lines["llama3.2:1b-instruct"].endswith("yes")
    assert lines["llama3.2-vision:11b-instruct"].endswith("later")
    data = {entry["name"]: entry for entry in json.loads(llama("list", "--all", "--json").stdout)}
    assert data["llama3.2:1b-instruct"]["here"] and data["llama3.2:1b-instruct"]["context_length"] == 131072
    assert "llama3.3:70b-instruct" in llama("list", "-aq").stdout.split()


def test_pull_fetches_and_says_what_came(llama, server: FakeHub) -> None:
    result = llama("pull", "a/b", "--json")
    assert result.exit_code == 0, result.output
    pulled = json.loads(result.stdout)
    assert pulled["repository"] == "a/b" and pulled["commit"] == COMMIT
    assert Path(pulled["path"], "model.safetensors").read_bytes() == WEIGHTS
    assert "a/b is here" in result.stderr and "verified" in result.stderr and "llama run a/b" in result.stderr
    again = llama("pull", "a/b")
    assert again.stdout == "" and "was here already" in again.stderr


def test_pull_of_a_gated_model_tells_the_way(llama, server: FakeHub) -> None:
    server.repos["meta-llama/Llama-3.2-1B-Instruct"] = Repo(dict(FILES), gated=True)
    result = llama("pull", "llama3.2:1b")
    assert result.exit_code == 1
    assert f"open {server.url}/meta-llama/Llama-3.2-1B-Instruct and accept" in result.stderr
    assert "Llama 3.2 Community License" in result.stderr
    assert llama("pull", "llama3.2:1b", "--token", "hf_good").exit_code == 0


def test_pull_without_a_network_names_what_is_here(llama, hub: Path) -> None:
    result = llama("pull", "llama3.1:8b", "--offline")
    assert result.exit_code == 1
    assert "Here now: llama3.2:1b-instruct-q4_k_m" in result.stderr
    assert llama("pull", MIRROR, "--offline").exit_code == 0


def test_show_of_a_known_model_that_is_not_here(llama) -> None:
    result = llama("show", "Llama3.2-3B-Instruct")
    assert result.exit_code == 0
    for fact in (
        "llama3.2:3b-instruct",
        "131,072",
        "3,212,749,824",
        "Llama 3.2 Community License",
        "prompt format   llama3.2",
    ):
        assert fact in result.stdout
    assert "llama pull llama3.2:3b-instruct" in result.stderr
    data = json.loads(llama("show", "llama3.2", "--json").stdout)
    assert data["shape"]["rope_factor"] == 32 and "unsloth/Llama-3.2-3B-Instruct" in data["repositories"]
    assert "image input is not built yet" in llama("show", "llama3.2-vision").stdout


def test_show_of_nothing(llama) -> None:
    result = llama("show", "lama3.2")
    assert result.exit_code == 1 and "nearest: llama3.2" in result.stderr


def test_rm_takes_what_was_named(llama, hub: Path) -> None:
    result = llama("rm", "llama3.2:1b-q8_0")
    assert result.exit_code == 0 and "freed" in result.stderr
    assert "llama3.2:1b-instruct-q8_0" not in llama("list", "-q").stdout
    assert llama("rm", "llama3.2:1b").exit_code == 0
    assert llama("list", "-q").stdout.split() == ["llama3.2:1b-instruct-q4_k_m"]
    again = llama("rm", "llama3.2:1b")
    assert again.exit_code == 1 and "llama list" in again.stderr


@pytest.mark.parametrize("name", ["../../etc", "a/../../b", "/etc/passwd", "~", "..", "./hub"])
def test_rm_refuses_what_was_not_pulled(llama, hub: Path, name: str) -> None:
    before = sorted(str(path) for path in hub.rglob("*"))
    assert llama("rm", "-y", name).exit_code in (1, 2)
    assert sorted(str(path) for path in hub.rglob("*")) == before


def test_rm_refuses_the_model_of_the_package(llama, world: Path) -> None:
    (world / "embedded" / "cria").mkdir(parents=True)
    (world / "embedded" / "cria" / "config.json").write_text("{}")
    result = llama("rm", "-y", "cria")
    assert result.exit_code == 2 and "part of llamakit" in result.stderr
    assert embedded.find("cria") is not None


def test_create_show_and_remove_a_model(llama, hub: Path, world: Path) -> None:
    (world / "Modelfile").write_text(
        'FROM llama3.2:1b\nPARAMETER temperature 0.1\nPARAMETER numa 1\nSYSTEM """Be\nbrief."""\n'
    )
    result = llama("create", "brief")
    assert result.exit_code == 0, result.output
    assert (
        "created brief from llama3.2:1b-instruct" in result.stderr
        and "set aside, they mean nothing here: numa" in result.stderr
    )
    assert llama("show", "brief", "--modelfile").stdout == (
        'FROM llama3.2:1b\nPARAMETER temperature 0.1\nSYSTEM """Be\nbrief."""\n'
    )
    assert "brief" in llama("list", "-q").stdout.split()
    assert llama("rm", "-y", "brief").exit_code == 0
    assert "brief" not in llama("list", "-q").stdout.split()


def test_create_keeps_paths_that_hold_from_anywhere(llama, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (world / "models").mkdir()
    (world / "models" / "x.gguf").write_bytes(b"GGUF")
    (world / "models" / "lora").mkdir()
    (world / "models" / "Modelfile").write_text("FROM ./x.gguf\nADAPTER lora\n")
    assert llama("create", "mine", "-f", "models/Modelfile").exit_code == 0
    recipe = store.load(world / "home", "mine").recipe
    assert recipe == Modelfile(base=str(world / "models" / "x.gguf"), adapters=(str(world / "models" / "lora"),))


def test_create_from_standard_input_and_from_a_name(llama, hub: Path, world: Path) -> None:
    assert llama("create", "one", "-f", "-", input="FROM llama3.2:1b\nSYSTEM one").exit_code == 0
    assert llama("create", "two:v1", "--from", "one", "--system", "two").exit_code == 0
    assert store.names(world / "home") == ["one", "two:v1"]
    missing = llama("create", "three", "--from", "llama3.1:8b")
    assert missing.exit_code == 0 and "Get it with `llama pull llama3.1:8b-instruct`" in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "modelfile", "told"),
    [
        (["x"], None, "no file Modelfile; write one beginning with FROM"),
        (["x"], "FROM nothing-known", "no model 'nothing-known'"),
        (["x"], "FROM llama3.2:1b\nTEMPLATE x", "TEMPLATE is not supported"),
        (["x"], "FROM llama3.2:1b\nADAPTER nowhere", "does not exist"),
        (["llama3.2:1b"], "FROM llama3.2:3b", "is a model already known"),
        (["../x"], "FROM llama3.2:1b", "the name of a created model is"),
        (["x", "--system", "y"], "FROM llama3.2:1b", "--system goes with --from"),
    ],
)
def test_create_refuses(llama, world: Path, arguments: list[str], modelfile: str | None, told: str) -> None:
    if modelfile is not None:
        (world / "Modelfile").write_text(modelfile)
    result = llama("create", *arguments)
    assert result.exit_code in (1, 2) and told in result.stderr
    assert store.names(world / "home") == []


def test_metas_verbs(llama, hub: Path, server: FakeHub) -> None:
    assert "Llama3.2-1B-Instruct" in llama("model", "list").stdout
    assert MIRROR in llama("model", "list", "--downloaded").stdout
    assert "llama-guard3:1b" in llama("model", "describe", "--model-id", "Llama-Guard-3-1B").stdout
    server.repos["meta-llama/Llama-3.2-1B"] = Repo(dict(FILES))
    assert llama("model", "download", "--model-id", "Llama3.2-1B").exit_code == 0
    assert llama("model", "download", "--model-id", "Llama3.2-1B", "--source", "meta").exit_code == 2
    assert llama("model", "verify-download", "--model-id", "Llama3.2-1B").exit_code == 0
    blob = next((hub / "models--meta-llama--Llama-3.2-1B" / "snapshots").rglob("model.safetensors")).resolve()
    blob.write_bytes(b"!" + WEIGHTS[1:])
    damaged = llama("model", "verify-download", "--model-id", "Llama3.2-1B")
    assert damaged.exit_code == 1 and "DAMAGED" in damaged.stdout and "llama rm llama3.2:1b-base" in damaged.stderr
    assert llama("model", "verify-download", "--model-id", "Llama3.2-3B").exit_code == 1
    assert llama("model", "remove", "-m", "Llama3.2-1B", "--force").exit_code == 0
