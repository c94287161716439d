"""Names from outside never become a way out of a directory."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.core.errors import DownloadError, InvalidRequest, LlamakitError
from llamakit.hub import cache, ids, store
from llamakit.hub.modelfile import Modelfile

# Would leave a directory, or be read as something else, wherever they are used.
HOSTILE = [
    "..", "../x", "x/..", "x/../y", "../../etc/passwd", "/etc/passwd", "//host/share", "\\\\host\\share", "C:\\x",
    "x\x00y", "x\ny", ".", "", " ", "x/", "/x", "x//y", "con", "nul.txt", "com1", "a:b:c", "x|y", "x*", "x?y/z",
    "<x>/y", "..\\x", "x\\..\\y",
]  # fmt: skip
# Odd, but a file of a repository may be called so; they stay inside.
ODD = [
    "x y", "~", "~root", ".hidden/x", "x/.git", "x/y/z", "é/x", "x/é", "a--b/c", "a/b..c", "-rf/x", "x/-", "x;rm -rf",
    "$(x)", "%2e%2e/x", "a" * 200 + "/x", "x/" + "b" * 200, "\u202ex/y", "x/y\u2028",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE + ODD)
def test_such_names_are_no_repository_and_no_created_model(text: str, tmp_path: Path) -> None:
    assert not ids.is_repo(text)
    with pytest.raises(InvalidRequest):
        cache.repo_directory(tmp_path, text)
    with pytest.raises(InvalidRequest):
        store.save(tmp_path / "home", text, Modelfile(base="cria"))
    assert list(tmp_path.rglob("*.json")) == []


@pytest.mark.parametrize("text", [*HOSTILE, "x/con", "x/NUL.gguf", "x/y.", "x/y ", "x/" * 600 + "y"])
def test_hostile_file_names_are_refused(text: str) -> None:
    with pytest.raises(DownloadError):
        ids.check_file(text)


@pytest.mark.parametrize("text", ODD)
def test_odd_file_names_stay_inside(text: str, tmp_path: Path) -> None:
    assert (tmp_path / ids.check_file(text)).resolve().is_relative_to(tmp_path.resolve())


@given(st.text(max_size=60) | st.text(alphabet="./\\~ab:-_\x00", max_size=20))
@settings(deadline=None, max_examples=400)
def test_whatever_passes_stays_inside(text: str) -> None:
    root = Path("/data/root")
    try:
        assert (root / ids.check_file(text)).resolve().is_relative_to(root)
    except LlamakitError:
        pass
    try:
        stem, tag = ids.check_created(text)
        path = (root / stem / f"{tag}.json").resolve()
        assert path.parent.parent == root
    except LlamakitError:
        pass
    if ids.is_repo(text):
        assert cache.repo_directory(root, text).resolve().parent == root


@pytest.mark.parametrize("text", ["main", "refs/pr/1", "v1.0", "0123456789abcdef0123456789abcdef01234567"])
def test_revisions(text: str) -> None:
    assert ids.check_revision(text) == text


@pytest.mark.parametrize("text", ["", "../main", "a//b", "/main", "main/", "a b", "a\x00", "-x", "x" * 200])
def test_bad_revisions(text: str) -> None:
    with pytest.raises(InvalidRequest):
        ids.check_revision(text)


def test_digests_are_strict() -> None:
    assert ids.check_digest("a" * 64) == "a" * 64
    for text in (None, "", "A" * 64, "a" * 63, "sha256:" + "a" * 64, "../" + "a" * 61, "a" * 64 + "\n"):
        with pytest.raises(DownloadError):
            ids.check_digest(text)
    for text in (None, "main", "a" * 39, "a" * 40 + "\n"):
        with pytest.raises(DownloadError):
            ids.check_commit(text)


def test_a_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home" / "models").mkdir(parents=True)
    (tmp_path / "home" / "models" / "evil").symlink_to(tmp_path)
    with pytest.raises(InvalidRequest, match="outside"):
        store.save(tmp_path / "home", "evil", Modelfile(base="cria"))
