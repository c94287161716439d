"""Pulling from a hub that cuts, lies, redirects and refuses: the right bytes in the end, or a clear error."""

from __future__ import annotations

import hashlib
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakehub import COMMIT, FakeHub, Repo

from llamakit.core.config import Secret
from llamakit.core.errors import DownloadError, GatedModel, InvalidRequest, Offline, UnsupportedFormat
from llamakit.core.faults import injected
from llamakit.hub import cache, embedded, fetch, store
from llamakit.hub.download import Progress, pull, verify
from llamakit.hub.locate import resolve_model
from llamakit.hub.modelfile import Modelfile

RNG = random.Random(7)
WEIGHTS = RNG.randbytes(300_000)
FILES = {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}", "model.safetensors": WEIGHTS,
         "README.md": b"hello", "pytorch_model.bin": b"pickle" * 500}  # fmt: skip
OFFICIAL = "meta-llama/Llama-3.2-1B-Instruct"
MIRROR = "unsloth/Llama-3.2-1B-Instruct"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub with one open repository, and an environment that leads to it and to nothing else."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "LLAMA_OFFLINE", "LLAMA_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLAMA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(embedded, "ROOT", tmp_path / "embedded")
    monkeypatch.setattr(fetch, "_sleep", lambda seconds: None)
    with FakeHub() as hub:
        hub.repos["a/b"] = Repo(dict(FILES))
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return tmp_path / "hub"


def test_a_model_arrives_whole_and_only_what_it_needs(server: FakeHub, hub: Path) -> None:
    steps: list[Progress] = []
    pulled = pull("a/b", progress=steps.append)
    assert (pulled.path / "model.safetensors").read_bytes() == WEIGHTS
    assert set(pulled.files) == {"config.json", "tokenizer.json", "model.safetensors"}
    assert pulled.fetched_bytes == pulled.total_bytes == steps[-1].done == steps[-1].total
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert pulled.commit == COMMIT and (hub / "models--a--b" / "refs" / "main").read_text() == COMMIT
    blob = (pulled.path / "model.safetensors").resolve()
    assert (
        blob.name == hashlib.sha256(WEIGHTS).hexdigest() and blob.parent == (hub / "models--a--b" / "blobs").resolve()
    )
    assert dict(verify(cache.snapshots(hub)[0])) == dict.fromkeys(pulled.files, True)
    assert list(hub.rglob("*.incomplete")) == []
    assert resolve_model("a/b").path == pulled.path


def test_the_hubs_own_library_finds_what_was_pulled(server: FakeHub, hub: Path) -> None:
    from huggingface_hub import scan_cache_dir, try_to_load_from_cache

    pulled = pull("a/b")
    assert try_to_load_from_cache("a/b", "config.json", cache_dir=hub) == str(pulled.path / "config.json")
    info = scan_cache_dir(hub)
    assert [repo.repo_id for repo in info.repos] == ["a/b"] and not info.warnings


def test_pulling_again_fetches_nothing(server: FakeHub) -> None:
    pull("a/b")
    before = len(server.file_requests("model.safetensors"))
    assert pull("a/b").fetched_bytes == 0
    assert len(server.file_requests("model.safetensors")) == before


def test_cuts_are_resumed_where_they_happened(server: FakeHub) -> None:
    """200 random cuts: the right bytes in the end, and none fetched twice."""
    cuts = iter([RNG.randrange(1, 1400) for _ in range(200)])
    server.cut_after = lambda path: next(cuts, None) if path.endswith("safetensors") else None
    pulled = pull("a/b")
    assert (pulled.path / "model.safetensors").read_bytes() == WEIGHTS
    requests = server.file_requests("model.safetensors")
    assert len(requests) == 201
    starts = [int(r.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-")) for r in requests]
    assert starts == sorted(set(starts)), "each request goes on where the last one stopped"
    assert pulled.fetched_bytes == pulled.total_bytes


def test_an_interrupted_pull_is_resumed_by_the_next(server: FakeHub, hub: Path) -> None:
    chunks = iter(range(10**6))

    def interrupt() -> None:
        if next(chunks) == 3:
            raise KeyboardInterrupt

    with injected("hub.chunk", interrupt), pytest.raises(KeyboardInterrupt):
        pull("a/b")
    (part,) = hub.rglob("*.incomplete")
    assert 0 < part.stat().st_size < len(WEIGHTS)
    assert cache.snapshots(hub) == [], "a partial model is not to be seen"
    pulled = pull("a/b")
    assert (
        server.file_requests("model.safetensors")[-1].headers["range"]
        == f"bytes={len(WEIGHTS) - pulled.fetched_bytes}-"
    )
    assert (pulled.path / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("point", ["hub.before_rename", "hub.before_publish"])
def test_a_crash_at_any_point_leaves_nothing_half_visible(server: FakeHub, hub: Path, point: str) -> None:
    def die() -> None:
        raise SystemExit(9)

    with injected(point, die), pytest.raises(SystemExit):
        pull("a/b")
    assert cache.snapshots(hub) == []
    assert (pull("a/b").path / "model.safetensors").read_bytes() == WEIGHTS


def test_a_server_without_ranges_starts_over(server: FakeHub, hub: Path) -> None:
    cuts = iter([1000, 2000])
    server.cut_after = lambda path: next(cuts, None) if path.endswith("safetensors") else None
    server.ignores_range = True
    steps: list[Progress] = []
    pulled = pull("a/b", progress=steps.append)
    assert (pulled.path / "model.safetensors").read_bytes() == WEIGHTS
    assert steps[-1].done == steps[-1].total


def test_a_part_of_other_bytes_does_not_verify_and_is_thrown_away(server: FakeHub, hub: Path) -> None:
    blob = hub / "models--a--b" / "blobs" / hashlib.sha256(WEIGHTS).hexdigest()
    blob.parent.mkdir(parents=True)
    blob.with_name(blob.name + ".incomplete").write_bytes(b"x" * 1000)
    with pytest.raises(DownloadError, match=r"model.safetensors does not verify: its sha256 should be \w{64} and is"):
        pull("a/b")
    assert cache.snapshots(hub) == [] and list(hub.rglob("*.incomplete")) == []
    assert (pull("a/b").path / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("extra", [b"y" * 10, b""])
def test_a_part_that_is_too_long_or_whole_is_used_rightly(server: FakeHub, hub: Path, extra: bytes) -> None:
    blob = hub / "models--a--b" / "blobs" / hashlib.sha256(WEIGHTS).hexdigest()
    blob.parent.mkdir(parents=True)
    blob.with_name(blob.name + ".incomplete").write_bytes(WEIGHTS + extra)
    assert (pull("a/b").path / "model.safetensors").read_bytes() == WEIGHTS
    assert len(server.file_requests("model.safetensors")) == (1 if extra else 0)


def test_a_new_commit_is_a_new_snapshot_and_shares_what_did_not_change(server: FakeHub, hub: Path) -> None:
    old = pull("a/b")
    server.repos["a/b"] = Repo({**FILES, "config.json": b'{"new": 1}'}, commit="d" * 40)
    new = pull("a/b")
    assert new.commit == "d" * 40 and new.path != old.path
    assert len(server.file_requests("model.safetensors")) == 1
    assert resolve_model("a/b").path == new.path
    assert resolve_model(f"a/b@{old.commit}").path == old.path


def test_a_changed_file_is_never_glued_to_an_old_part(server: FakeHub, hub: Path) -> None:
    server.cut_after = lambda path: 5000 if path.endswith("safetensors") else None
    other = RNG.randbytes(200_000)
    server.status = lambda path: 503 if path.endswith("safetensors") and len(server.requests) > 5 else None
    with pytest.raises(DownloadError, match=r"gave up after 6 tries without progress .*run the same command again"):
        pull("a/b")
    server.status = server.cut_after = lambda path: None
    server.repos["a/b"] = Repo({**FILES, "model.safetensors": other}, commit="d" * 40)
    assert (pull("a/b").path / "model.safetensors").read_bytes() == other


def test_a_lying_digest_is_an_error(server: FakeHub, hub: Path) -> None:
    server.repos["a/b"].claimed_sha256["model.safetensors"] = "0" * 64
    with pytest.raises(DownloadError, match="does not verify"):
        pull("a/b")
    assert cache.snapshots(hub) == []


@pytest.mark.parametrize("name", ["../../evil.safetensors", "/etc/x", "a\\b", "con"])
def test_a_repository_with_hostile_file_names_is_refused(server: FakeHub, hub: Path, name: str) -> None:
    server.repos["a/b"].files[name] = b"x" * 2000
    with pytest.raises(DownloadError, match="not a plain relative path"):
        pull("a/b")
    assert not (hub.parent / "evil.safetensors").exists()


@pytest.mark.parametrize("digest", ["../../x", "A" * 64, "0" * 63, "sha256:" + "0" * 64])
def test_a_digest_that_is_no_digest_is_refused(server: FakeHub, digest: str) -> None:
    server.repos["a/b"].claimed_sha256["model.safetensors"] = digest
    with pytest.raises(DownloadError, match="a content digest must be"):
        pull("a/b")


def test_a_commit_that_is_no_commit_is_refused(server: FakeHub) -> None:
    server.repos["a/b"].commit = "../../x"
    with pytest.raises(DownloadError, match="commit id must be 40"):
        pull("a/b")


def test_a_gate_is_explained(server: FakeHub, hub: Path) -> None:
    server.repos[OFFICIAL] = Repo(dict(FILES), gated=True)
    server.repos[MIRROR] = Repo(dict(FILES))
    with pytest.raises(GatedModel) as error:
        pull("llama3.2:1b")
    message = str(error.value)
    assert "accept the Llama 3.2 Community License first" in message
    assert f"open {server.url}/{OFFICIAL} and accept" in message
    assert "llama pull llama3.2:1b-instruct --token" in message
    assert "llama pull llama3.2:1b-instruct --mirror" in message
    with pytest.raises(GatedModel):
        pull("llama3.2:1b", token=Secret("hf_not_accepted"))
    assert pull("llama3.2:1b", token=Secret("hf_good")).repo == OFFICIAL
    shutil.rmtree(hub)
    pulled = pull("llama3.2:1b", mirror=True)
    assert pulled.repo == MIRROR
    assert pulled.differs == ("model.safetensors",), "these bytes are not the known ones, and that is said"


def test_credentials_stay_with_the_hub(server: FakeHub) -> None:
    with FakeHub() as elsewhere:
        elsewhere.repos["a/b"] = Repo(dict(FILES))
        server.redirect_to = elsewhere.url
        pulled = pull("a/b", token=Secret("hf_good"))
        assert (pulled.path / "model.safetensors").read_bytes() == WEIGHTS
        assert all(request.headers["authorization"] == "Bearer hf_good" for request in server.requests)
        assert elsewhere.requests and all("authorization" not in request.headers for request in elsewhere.requests)


@pytest.mark.parametrize("target", ["ftp://x/y", "file:///etc/passwd"])
def test_redirects_out_of_http_are_refused(server: FakeHub, target: str) -> None:
    server.redirect_to = target
    with pytest.raises(DownloadError, match="refused"):
        pull("a/b")


def test_endless_redirects_end(server: FakeHub) -> None:
    server.redirect_to = server.url
    with pytest.raises(DownloadError, match="redirects more than"):
        pull("a/b")


def test_a_busy_hub_is_asked_again(server: FakeHub) -> None:
    answers = iter([503, 429, 500])
    server.status = lambda path: next(answers, None) if path.endswith("safetensors") else None
    assert (pull("a/b").path / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("status", "complaint"), [(500, "answered 500 about a/b: try again"), (404, "answered 404 about a/b")]
)
def test_a_hub_in_trouble_is_named(server: FakeHub, status: int, complaint: str) -> None:
    server.status = lambda path: status if path.startswith("/api") else None
    with pytest.raises(DownloadError, match=complaint):
        pull("a/b")


def test_what_is_not_there_is_named(server: FakeHub) -> None:
    with pytest.raises(DownloadError, match="has no repository who/knows, or it is private"):
        pull("who/knows")
    with pytest.raises(DownloadError, match="a/b has no revision 'v9'"):
        pull("a/b", revision="v9")
    server.repos["p/q"] = Repo(dict(FILES), private=True)
    assert pull("p/q", token=Secret("hf_good")).files


def test_without_a_network_what_is_here_serves_and_the_rest_is_named(server: FakeHub, monkeypatch) -> None:
    pull("a/b")
    requests = len(server.requests)
    assert pull("a/b", offline=True).fetched_bytes == 0
    with pytest.raises(Offline, match=r"c/d is not on this machine and the network is switched off .* Here now: a/b\."):
        pull("c/d", offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Offline, match="llama pull c/d"):
        pull("c/d")
    assert len(server.requests) == requests
    monkeypatch.delenv("HF_HUB_OFFLINE")
    dead = "http://127.0.0.1:9"
    assert pull("a/b", endpoint=dead).fetched_bytes == 0
    with pytest.raises(Offline, match=r"127.0.0.1:9 cannot be reached .* Here now: a/b\."):
        pull("c/d", endpoint=dead)


def test_without_a_network_any_copy_serves(server: FakeHub) -> None:
    server.repos[MIRROR] = Repo(dict(FILES))
    pull("llama3.2:1b", mirror=True)
    assert pull("llama3.2:1b", offline=True).repo == MIRROR


def test_too_little_space_is_said_before_anything_is_fetched(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DownloadError, match=r"needs 0.0 GB more and 0.0 GB are free .* HF_HOME"):
        pull("a/b")
    assert server.file_requests("config.json") == []


def test_parallel_pulls_fetch_once(server: FakeHub) -> None:
    results: list[bytes] = []

    def work() -> None:
        results.append((pull("a/b").path / "model.safetensors").read_bytes())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [WEIGHTS] * 4
    assert len(server.file_requests("model.safetensors")) == 1


def test_every_part_of_a_gguf(server: FakeHub, hub: Path) -> None:
    parts = {f"x-Q8_0-0000{number}-of-00002.gguf": str(number).encode() * 1000 for number in (1, 2)}
    server.repos["a/b"] = Repo(parts)
    pulled = pull("a/b:Q8_0")
    assert pulled.files == tuple(parts) and pulled.path.name == "x-Q8_0-00001-of-00002.gguf"
    assert all((pulled.path.parent / name).read_bytes() == data for name, data in parts.items())
    assert resolve_model("a/b:Q8_0").path == pulled.path


def test_gguf_and_original(server: FakeHub, hub: Path) -> None:
    gguf = {f"Llama-3.2-1B-Instruct-{quant}.gguf": quant.encode() * 1000 for quant in ("Q4_K_M", "Q8_0")}
    server.repos["bartowski/Llama-3.2-1B-Instruct-GGUF"] = Repo(gguf)
    pulled = pull("llama3.2:1b", quant="q8_0")
    assert pulled.path.name == "Llama-3.2-1B-Instruct-Q8_0.gguf" and len(pulled.files) == 1
    assert resolve_model("llama3.2:1b-instruct-q8_0").path == pulled.path
    assert pull("bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M").path.exists(), "a second file joins the first"
    assert resolve_model("llama3.2:1b-instruct-q8_0").path == pulled.path
    meta = {
        "original/consolidated.00.pth": b"p" * 3000,
        "original/params.json": b"{}",
        "original/tokenizer.model": b"t",
    }
    server.repos["meta-llama/Llama-3.2-1B"] = Repo({**FILES, **meta})
    pulled = pull("llama3.2:1b-base", original=True)
    assert pulled.path.name == "original" and (pulled.path / "consolidated.00.pth").read_bytes() == b"p" * 3000


def test_what_cannot_be_pulled_is_said(server: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "embedded" / "cria").mkdir(parents=True)
    (tmp_path / "embedded" / "cria" / "config.json").write_text("{}")
    with pytest.raises(InvalidRequest, match="cria comes with llamakit; there is nothing to pull"):
        pull("cria")
    with pytest.raises(InvalidRequest, match="is on this machine already"):
        pull(str(tmp_path))
    with pytest.raises(UnsupportedFormat, match=r"cannot run here: image input .* llama pull meta-llama/"):
        pull("llama3.2-vision")
    with pytest.raises(InvalidRequest, match="no mirror of a/b is known"):
        pull("a/b", mirror=True)
    with pytest.raises(InvalidRequest, match="choose one"):
        pull("llama3.2:1b", quant="Q8_0", original=True)
    with pytest.raises(InvalidRequest, match="looks like Q4_K_M"):
        pull("a/b", quant="../x")
    store.save(tmp_path / "home", "mine", Modelfile(base="a/b"))
    assert pull("mine").repo == "a/b"


def test_damage_on_the_disk_is_found(server: FakeHub, hub: Path) -> None:
    pulled = pull("a/b")
    blob = (pulled.path / "model.safetensors").resolve()
    blob.write_bytes(WEIGHTS[:-1] + b"!")
    assert dict(verify(cache.snapshots(hub)[0]))["model.safetensors"] is False
