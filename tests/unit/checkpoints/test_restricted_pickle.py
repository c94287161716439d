"""The reader of torch.save files against programs that want to be run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llamakit.checkpoints.restricted_pickle import ALLOWED_NAMES
from llamakit.checkpoints.torch_file import TorchFile
from llamakit.core.errors import CheckpointError

STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
"""A persistent id of four float32 in data/0."""
ORDERED = b"ccollections\nOrderedDict\n)R"


def tensor(
    storage: bytes = STORAGE, offset: bytes = b"K\x00", shape: bytes = b"K\x04\x85", stride: bytes = b"K\x01\x85"
) -> bytes:
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + shape + stride + b"\x89" + ORDERED + b"tR"


def state(value: bytes, key: bytes = b"X\x01\x00\x00\x00w") -> bytes:
    return b"\x80\x02}" + key + value + b"s."


def archive(path: Path, program: bytes, data: bytes = bytes(16)) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("archive/data.pkl", program)
        out.writestr("archive/version", "3\n")
        out.writestr("archive/data/0", data)
    return path


def read(path: Path) -> dict[str, torch.Tensor]:
    with TorchFile(path) as file:
        return {name: stored.load() for name, stored in file.tensors.items()}


def test_reads_what_torch_writes(tmp_path: Path) -> None:
    tensors = {
        "half": torch.randn(3, 4).half(),
        "brain": torch.randn(5).bfloat16(),
        "single": torch.randn(2, 3, 4),
        "double": torch.randn(1).double(),
        "scalar": torch.tensor(3.5),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        "transposed": torch.randn(4, 6).t(),
    }
    torch.save(tensors, tmp_path / "x.pth")
    found = read(tmp_path / "x.pth")
    assert list(found) == list(tensors)
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value.data)


def test_reads_the_state_of_a_module(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    torch.save(module.state_dict(), tmp_path / "x.pth")
    assert torch.equal(read(tmp_path / "x.pth")["0.weight"], module[0].weight.data)


def test_views_of_one_storage_may_not_overlap(tmp_path: Path) -> None:
    base = torch.arange(8.0)
    torch.save({"a": base[:4], "b": base[4:]}, tmp_path / "x.pth")
    assert read(tmp_path / "x.pth")["b"].tolist() == [4, 5, 6, 7]
    torch.save({"a": base[:5], "b": base[4:]}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="'a' and 'b' share bytes"):
        TorchFile(tmp_path / "x.pth")


def test_the_hand_made_file_is_good(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pth", state(tensor()), struct.pack("<4f", 1, 2, 3, 4))
    assert read(path)["w"].tolist() == [1, 2, 3, 4]


def test_the_allow_list_is_short_and_harmless() -> None:
    assert len(ALLOWED_NAMES) < 10
    assert {name.split(" ")[0] for name in ALLOWED_NAMES} == {"torch", "torch._utils", "collections"}


class Payload:
    def __init__(self, call: Callable, *arguments: object) -> None:
        self._reduced = (call, arguments)

    def __reduce__(self):
        return self._reduced


def _gadgets() -> dict[str, object]:
    import asyncio
    import builtins
    import code
    import functools
    import importlib
    import operator
    import pdb
    import pty
    import runpy
    import subprocess
    import timeit

    return {
        "os.system": Payload(os.system, "touch PWNED"),
        "subprocess": Payload(subprocess.run, ["touch", "PWNED"]),
        "eval": Payload(builtins.eval, "open('PWNED', 'w')"),
        "exec": Payload(builtins.exec, "open('PWNED', 'w')"),
        "open": Payload(builtins.open, "PWNED", "w"),
        "getattr": Payload(builtins.getattr, "x", "upper"),
        "import": Payload(importlib.import_module, "os"),
        "attrgetter": Payload(operator.attrgetter, "system"),
        "partial": Payload(functools.partial, os.system, "touch PWNED"),
        "runpy": Payload(runpy.run_path, "PWNED"),
        "pdb": Payload(pdb.run, "open('PWNED', 'w')"),
        "timeit": Payload(timeit.timeit, "open('PWNED', 'w')"),
        "code": Payload(code.interact),
        "pty": Payload(pty.spawn, "/bin/true"),
        "asyncio": Payload(asyncio.run, None),
        "torch.load": Payload(torch.load, "x"),
        "torch.hub": Payload(torch.hub.load, "x", "y"),
        "torch.jit": Payload(torch.jit.load, "x"),
        "nested": {"a": [torch.ones(2), ({"b": Payload(os.system, "touch PWNED")},)]},
        "beside a tensor": {"w": torch.ones(2), "x": Payload(os.system, "touch PWNED")},
        "ordered": OrderedDict(w=Payload(os.system, "touch PWNED")),
        "bytearray": {"w": bytearray(b"x")},
        "set": {"w": {1, 2}},
        "complex": {"w": 1j},
        "class": {"w": torch.nn.Linear},
        "module": torch.nn.Linear(2, 2),
        "numpy": {"w": torch.ones(2).numpy()},
        "sparse": {"w": torch.eye(2).to_sparse()},
        "integers": {"w": torch.ones(2, dtype=torch.int64)},
        "fp8": {"w": torch.ones(2).to(torch.float8_e4m3fn)},
        "list": [torch.ones(2)],
        "nested dict": {"model": {"w": torch.ones(2)}},
        "number": {"w": torch.ones(2), "step": 3},
    }


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("gadget", list(_gadgets()))
@pytest.mark.filterwarnings("ignore")
def test_nothing_is_ever_run(gadget: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(_gadgets()[gadget], "x.pth", pickle_protocol=protocol)
    with pytest.raises(CheckpointError, match=r"^x.pth: ") as caught:
        TorchFile(Path("x.pth"))
    assert "\n" not in str(caught.value)
    assert not Path("PWNED").exists()


TEXT = b"X\x02\x00\x00\x00os"
PROGRAMS: dict[str, bytes] = {
    "stack global": state(TEXT + b"X\x06\x00\x00\x00system\x93" + TEXT + b"\x85R"),
    "stack global from memo": b"\x80\x02" + TEXT + b"q\x00X\x06\x00\x00\x00systemq\x01h\x00h\x01\x93.",
    "inst": b"\x80\x02(" + TEXT + b"ios\nsystem\n.",
    "obj": b"\x80\x02(cos\nsystem\n" + TEXT + b"o.",
    "newobj": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "extension": b"\x80\x02\x82\x01.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"}.",
    "protocol 5": b"\x80\x05}.",
    "protocol in the middle": b"\x80\x02}\x80\x02.",
    "no protocol, name": b"cos\nsystem\n.",
    "name with a dot": state(b"ctorch\n_utils._rebuild_tensor_v2\n"),
    "name with spaces": state(b"ctorch._utils _rebuild_tensor_v2\n\n"),
    "name in other letters": state("ctоrch\nFloatStorage\n".encode()),
    "name without end": state(b"c" + b"a" * 200),
    "calls a storage": b"\x80\x02ctorch\nFloatStorage\nK\x04\x85R.",
    "calls a tensor": b"\x80\x02" + tensor() + b")R.",
    "calls OrderedDict with items": b"\x80\x02ccollections\nOrderedDict\n(]t\x85R.",
    "builds a tensor": state(tensor() + b"}b"),
    "builds a name": b"\x80\x02ctorch\nFloatStorage\n}X\x08\x00\x00\x00__dict__}sb.",
    "builds a dict with attributes": b"\x80\x02" + ORDERED + b"}X\x09\x00\x00\x00__class__K\x01sb.",
    "persistent text": b"\x80\x02X\x01\x00\x00\x000Q.",
    "persistent line": b"\x80\x02P0\n.",
    "persistent, long": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000NK\x04tQ.",
    "persistent, path as key": state(tensor(STORAGE.replace(b"X\x01\x00\x00\x000", b"X\x04\x00\x00\x00../0"))),
    "persistent, foreign digit": state(tensor(STORAGE.replace(b"X\x01\x00\x00\x000", b"X\x02\x00\x00\x00\xd9\xa0"))),
    "persistent, no values": state(tensor(STORAGE.replace(b"K\x04", b"K\x00"))),
    "persistent, negative": state(tensor(STORAGE.replace(b"K\x04", b"J\xff\xff\xff\xff"))),
    "persistent, true": state(tensor(STORAGE.replace(b"K\x04", b"\x88"))),
    "persistent, absent member": state(tensor(STORAGE.replace(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x001"))),
    "storage larger than its member": state(tensor(STORAGE.replace(b"K\x04", b"K\x05"))),
    "storage smaller than its member": state(tensor(STORAGE.replace(b"K\x04", b"K\x03"), shape=b"K\x03\x85")),
    "storage beyond 64 bits": state(tensor(STORAGE.replace(b"K\x04", b"\x8a\x09" + b"\xff" * 8 + b"\x00"))),
    "shape beyond the storage": state(tensor(shape=b"K\x05\x85")),
    "offset beyond the storage": state(tensor(offset=b"K\x01")),
    "negative offset": state(tensor(offset=b"J\xff\xff\xff\xff")),
    "offset that is true": state(tensor(offset=b"\x89")),
    "stride beyond the storage": state(tensor(shape=b"K\x02\x85", stride=b"K\x04\x85")),
    "negative stride": state(tensor(stride=b"J\xff\xff\xff\xff\x85")),
    "zero stride": state(tensor(shape=b"J\xff\xff\xff\x7f\x85", stride=b"K\x00\x85")),
    "overlapping strides": state(tensor(shape=b"K\x02K\x02K\x02\x87", stride=b"K\x01K\x01K\x01\x87")),
    "huge shape": state(tensor(shape=b"\x8a\x08" + b"\xff" * 7 + b"\x7f\x85")),
    "shapes of two lengths": state(tensor(shape=b"K\x02K\x02\x86")),
    "zero size": state(tensor(shape=b"K\x00\x85")),
    "shape that is a list": state(tensor(shape=b"]K\x04a")),
    "nine dimensions": state(tensor(shape=b"(" + b"K\x01" * 9 + b"t", stride=b"(" + b"K\x01" * 9 + b"t")),
    "tensor with hooks": state(tensor().replace(ORDERED + b"tR", b"}X\x01\x00\x00\x00aK\x01stR")),
    "key that is a tuple": state(tensor(), key=b")"),
    "key that is a number": state(tensor(), key=b"K\x01"),
    "key twice": b"\x80\x02}(X\x01\x00\x00\x00aNX\x01\x00\x00\x00aNu.",
    "odd items": b"\x80\x02}(X\x01\x00\x00\x00au.",
    "items of a list": b"\x80\x02]X\x01\x00\x00\x00aNs.",
    "append to a dict": b"\x80\x02}Na.",
    "pop of nothing": b"\x80\x02s.",
    "pop through a mark": b"\x80\x02}X\x01\x00\x00\x00a(Ns.",
    "mark left open": b"\x80\x02(}.",
    "tuple without mark": b"\x80\x02t.",
    "memo that was not set": b"\x80\x02h\x00.",
    "two values left": b"\x80\x02}}.",
    "nothing left": b"\x80\x02.",
    "no stop": b"\x80\x02}",
    "bytes after stop": b"\x80\x02}.}",
    "empty": b"",
    "cut name": b"\x80\x02ctorch\nFlo",
    "cut number": b"\x80\x02J\x01",
    "text longer than the file": b"\x80\x02X\xff\xff\xff\x7fa.",
    "text that is not UTF-8": b"\x80\x02X\x01\x00\x00\x00\xff.",
    "value that is a storage": state(STORAGE),
    "value that is a name": state(b"ctorch\nFloatStorage\n"),
    "self reference": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
    "deep tuples as value": state(b")" + b"\x85" * 200_000),
    "deep tuples as key": state(b"N", key=b")" + b"\x85" * 200_000),
    "tuples that double": state(b")" + b"q\x00h\x00\x86" * 5000, key=b"X\x01\x00\x00\x00w"),
    "tuples that double as key": state(b"N", key=b")" + b"q\x00h\x00\x86" * 200),
    "endless steps": b"\x80\x02" + b"N" * 400_000,
    "many steps": b"\x80\x02" + b"Nq\x00" * 500_000 + b".",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_hostile_program_is_refused_in_time(program: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pth", PROGRAMS[program])
    with pytest.raises(CheckpointError, match=r"x.pth: ") as caught:
        TorchFile(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_an_old_file_without_archive_gets_advice(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"written by torch before 1.6"):
        TorchFile(tmp_path / "x.pth")


def test_a_bare_pickle_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(pickle.dumps(Payload(os.system, "touch PWNED")))
    with pytest.raises(CheckpointError, match="is not a torch archive"):
        TorchFile(tmp_path / "x.pth")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_script_archive_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"compressed member|does not write"):
        TorchFile(tmp_path / "x.pth")


def test_our_machine_never_uses_pickle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer)
    (tmp_path / "x.pth").write_bytes(buffer.getvalue())

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("pickle was used")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    monkeypatch.setattr(torch, "load", forbidden)
    assert read(tmp_path / "x.pth")["w"].tolist() == [1, 1]
