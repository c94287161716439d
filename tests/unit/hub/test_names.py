"""Every way to say a model, and what is said when nobody knows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamakit.core.errors import InvalidRequest, UnknownModel
from llamakit.hub import embedded, store
from llamakit.hub.modelfile import Modelfile
from llamakit.hub.names import resolve


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with one created model, and an embedded `cria`."""
    monkeypatch.setattr(embedded, "ROOT", tmp_path / "embedded")
    (tmp_path / "embedded" / "cria").mkdir(parents=True)
    (tmp_path / "embedded" / "cria" / "config.json").write_text("{}")
    store.save(tmp_path / "home", "mario", Modelfile(base="cria"))
    store.save(tmp_path / "home", "mario:v2", Modelfile(base="cria"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("said", "name", "source", "repos", "quant", "revision"),
    [
        ("cria", "cria", "embedded", (), None, None),
        ("Cria:latest", "cria", "embedded", (), None, None),
        ("mario", "mario", "created", (), None, None),
        ("mario:latest", "mario", "created", (), None, None),
        ("mario:v2", "mario:v2", "created", (), None, None),
        ("llama3.2:1b", "llama3.2:1b-instruct", "hub",
         ("meta-llama/Llama-3.2-1B-Instruct", "unsloth/Llama-3.2-1B-Instruct"), None, None),
        ("Llama3.2-1B-Instruct", "llama3.2:1b-instruct", "hub",
         ("meta-llama/Llama-3.2-1B-Instruct", "unsloth/Llama-3.2-1B-Instruct"), None, None),
        ("llama3.2:1b-instruct-q4_K_M", "llama3.2:1b-instruct-q4_k_m", "hub",
         ("bartowski/Llama-3.2-1B-Instruct-GGUF",), "Q4_K_M", None),
        ("llama3.2:1b:Q8_0", "llama3.2:1b-instruct-q8_0", "hub",
         ("bartowski/Llama-3.2-1B-Instruct-GGUF",), "Q8_0", None),
        ("llama3.2:1b-fp16", "llama3.2:1b-instruct-f16", "hub",
         ("bartowski/Llama-3.2-1B-Instruct-GGUF",), "F16", None),
        ("unsloth/Llama-3.2-1B-Instruct", "unsloth/Llama-3.2-1B-Instruct", "hub",
         ("unsloth/Llama-3.2-1B-Instruct",), None, None),
        ("META-LLAMA/llama-3.2-1b", "meta-llama/Llama-3.2-1B", "hub", ("meta-llama/Llama-3.2-1B",), None, None),
        ("someone/their.model_1", "someone/their.model_1", "hub", ("someone/their.model_1",), None, None),
        ("hf.co/someone/x-GGUF:q4_k_m", "someone/x-GGUF:Q4_K_M", "hub", ("someone/x-GGUF",), "Q4_K_M", None),
        ("https://huggingface.co/someone/x", "someone/x", "hub", ("someone/x",), None, None),
        ("hf://someone/x@v1.0", "someone/x@v1.0", "hub", ("someone/x",), None, "v1.0"),
        ("someone/x:Q8_0@main", "someone/x:Q8_0@main", "hub", ("someone/x",), "Q8_0", "main"),
    ],
)  # fmt: skip
def test_names(
    home: Path, said: str, name: str, source: str, repos: tuple[str, ...], quant: str | None, revision: str | None
) -> None:
    ref = resolve(said, home=home)
    assert (ref.name, ref.source, ref.repos, ref.quant, ref.revision) == (name, source, repos, quant, revision)
    assert resolve(ref.name, home=home) == ref, "the name that is shown must mean the same"


def test_paths(home: Path, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "config.json").write_text("{}")
    for said in ("./x.gguf", "x.gguf", str(tmp_path / "x.gguf"), "./runs/one", "runs/one", "."):
        ref = resolve(said, home=home)
        assert ref.source == "path" and ref.path is not None and ref.path.exists()
    with pytest.raises(UnknownModel, match=r"no file or directory './nothing'"):
        resolve("./nothing", home=home)


@pytest.mark.parametrize("said", ["./x.gguf", "../x", "/etc/passwd", "~/x", ".", "C:\\x"])
def test_paths_from_elsewhere_are_refused(home: Path, tmp_path: Path, said: str) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises((UnknownModel, InvalidRequest)):
        resolve(said, home=home, paths=False)


def test_an_existing_file_is_no_path_for_others(home: Path, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(UnknownModel):
        resolve("x.gguf", home=home, paths=False)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("lama3.2:1b", "nearest: .*llama3.2:1b-instruct"),
        ("llama3.2:2b", "nearest: .*llama3.2"),
        ("cira", "nearest: .*cria"),
        ("maria", "nearest: .*mario"),
        ("qwertyuiop", "no model 'qwertyuiop'. `llama list --all`"),
        ("llama-guard3:8b-q4_K_M", "no GGUF repository of llama-guard3:8b is known"),
    ],
)
def test_did_you_mean(home: Path, said: str, hint: str) -> None:
    with pytest.raises(UnknownModel, match=hint):
        resolve(said, home=home)


@pytest.mark.parametrize(
    "said", ["", " ", "a\x00b", "a/b/c", "hf.co/only", "hf.co/../x", "a/b:..", "a/b:", "a/b@../x", "a/b@", "x" * 2000]
)
def test_nonsense_is_refused(home: Path, said: str) -> None:
    with pytest.raises((InvalidRequest, UnknownModel)):
        resolve(said, home=home)
