"""Damaged and hostile files of every format: a clear error in time and within memory, or a good load.

The bound is that of the room: allocation of at most file size + 16 MiB while a file is parsed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.tiny import tiny_llama
from tests.unit.checkpoints import mutation
from tests.unit.checkpoints.builders import QLORA, write_gguf, write_hf, write_meta, write_published

from llamakit.checkpoints.hf import INDEX_NAME
from llamakit.checkpoints.load import load_model
from llamakit.checkpoints.open import open_checkpoint
from llamakit.checkpoints.reader import Generation
from llamakit.checkpoints.weights import check_weights
from llamakit.core.errors import CheckpointError
from llamakit.text.gguf_vocab import TokenizerFields

SLACK = 16 * 2**20
MAX_SECONDS = 3.0
"""Processor time for any one file."""
SMALL = {"num_layers": 1, "dim": 32, "num_heads": 2, "num_kv_heads": 1, "ffn_dim": 32, "vocab_size": 300}


def _good(kind: str, path: Path) -> Path:
    """A good checkpoint of the kind; returns the one file to be damaged."""
    model = tiny_llama(tie_embeddings=False, **SMALL)
    match kind:
        case "safetensors":
            return write_hf(path, model) / "model.safetensors"
        case "config":
            return write_hf(path, model) / "config.json"
        case "generation":
            habits = Generation(bos_id=1, eos_ids=(2, 3), temperature=0.6, top_p=0.9)
            return write_hf(path, model, generation=habits) / "generation_config.json"
        case "index":
            return write_hf(path, model, max_shard_bytes=20_000) / INDEX_NAME
        case "pth":
            return write_meta(path, model) / "consolidated.00.pth"
        case "params":
            return write_meta(path, model) / "params.json"
        case "gguf":
            path.mkdir()
            return write_gguf(path / "x.gguf", model)
        case "gguf-quantized":
            path.mkdir()
            return write_gguf(path / "x.gguf", model, quantization="q8_0")
        case "pth-quantized":
            return write_published(path, model.config, **QLORA) / "consolidated.00.pth"
        case "params-quantized":
            return write_published(path, model.config, **QLORA) / "params.json"
    raise AssertionError(kind)


MUTATORS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "safetensors": mutation.mutate_safetensors,
    "config": mutation.mutate_text_json,
    "generation": mutation.mutate_text_json,
    "index": mutation.mutate_text_json,
    "pth": mutation.at_sites(mutation.zip_sites, len),
    "params": mutation.mutate_text_json,
    "gguf": mutation.at_sites(mutation.gguf_sites, lambda data: len(data) // 8),
    "gguf-quantized": mutation.at_sites(mutation.gguf_sites, lambda data: len(data) // 8),
    "pth-quantized": mutation.at_sites(mutation.zip_sites, len),
    "params-quantized": mutation.mutate_text_json,
}


def _refused_in_bounds(size: int, action: Callable[[], object]) -> str:
    """Run twice, once for the time and once for the memory; the message of the refusal."""
    started = time.process_time()
    with pytest.raises(CheckpointError):
        action()
    assert time.process_time() - started < MAX_SECONDS
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            action()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= size + SLACK, f"{peak} bytes for a file of {size}"
    assert len(str(caught.value)) < 2000
    return str(caught.value)


@pytest.mark.parametrize("kind", MUTATORS)
def test_a_file_cut_anywhere_gives_one_clear_line(kind: str, tmp_path: Path) -> None:
    file = _good(kind, tmp_path / "m")
    # The closing line end of a JSON file may go without harm.
    whole = file.read_bytes().rstrip(b"\n")
    load_model(tmp_path / "m")
    for percent in range(100):
        file.write_bytes(whole[: len(whole) * percent // 100])
        with pytest.raises(CheckpointError) as caught:
            load_model(tmp_path / "m")
        message = str(caught.value)
        assert file.name in message or str(tmp_path / "m") in message
        assert "\n" not in message


def _read_all(path: Path) -> None:
    """Everything a reader can be asked for."""
    with open_checkpoint(path) as reader:
        reader.generation()
        reader.metadata()
        reader.tokenizer_source()
        check_weights(reader.infos(), reader.config(), path)
        for _ in reader.tensors(torch.bfloat16):
            pass
        for name in reader.names():
            reader.matrix(name)


def _attack(kind: str, directory: Path, count: int, seed: int) -> int:
    """Read `count` mutants; returns how many were refused. Anything but success or a CheckpointError escapes."""
    file = _good(kind, directory)
    whole = file.read_bytes()
    refused = 0
    for number in range(count):
        rng = random.Random(f"{kind}-{seed}-{number}")
        mutant = MUTATORS[kind](rng, whole)
        file.unlink()
        file.write_bytes(mutant)
        started = time.process_time()
        try:
            _read_all(directory)
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error), (kind, seed, number)
        except BaseException as error:
            error.add_note(f"mutant {kind}-{seed}-{number}")
            raise
        assert time.process_time() - started < MAX_SECONDS, (kind, seed, number)
    return refused


@pytest.mark.parametrize("kind", MUTATORS)
def test_mutants_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    count = 1000
    assert _attack(kind, tmp_path / "m", count, seed=1) > count // 8, "the mutator has lost its teeth"


@pytest.mark.parametrize("kind", MUTATORS)
def test_mutants_take_little_memory(kind: str, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        _attack(kind, tmp_path / "m", 100, seed=3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < SLACK


_LIMITED = """
import resource, sys, torch
from pathlib import Path
from tests.unit.checkpoints.test_hostile import _attack, _good
from llamakit.checkpoints.load import load_model
kind, directory, count, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
_good(kind, directory / "warm")
load_model(directory / "warm")
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 2**20,) * 2)
torch.set_num_threads(1)
print(_attack(kind, directory / "m", count, seed))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and RLIMIT_AS")
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", MUTATORS)
def test_many_mutants_within_a_hard_memory_limit(kind: str, tmp_path: Path) -> None:
    count = int(os.environ.get("LLAMAKIT_MUTANTS", "20000"))
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _LIMITED, kind, str(tmp_path), str(count), "2"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert int(run.stdout) > count // 4


# Bombs: small or well-formed files whose reading wants far more than they are.


def _safetensors(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def _string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _gguf(pairs: bytes, num_pairs: int, infos: bytes = b"", num_tensors: int = 1) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, num_tensors, num_pairs) + pairs + infos + bytes(64)


def _array(kind: int, count: int, payload: bytes) -> bytes:
    return _string(b"a") + struct.pack("<IIQ", 9, kind, count) + payload


def _entries(count: int) -> bytes:
    return b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[],"data_offsets":[0,0]}' % i for i in range(count)) + b"}"


INFO = b"".join([_string(b"t"), struct.pack("<IQIQ", 1, 4, 0, 0)])
MIB = 2**20
BOMBS: dict[str, Callable[[], tuple[str, bytes]]] = {
    "entries": lambda: ("model.safetensors", _safetensors(_entries(100_000))),
    "entries beyond the limit": lambda: ("model.safetensors", _safetensors(_entries(150_000))),
    "empty objects": lambda: ("model.safetensors", _safetensors(b"[" + b"{}," * (5 * MIB) + b"{}]")),
    "empty lists": lambda: ("model.safetensors", _safetensors(b"[" + b"[]," * (5 * MIB) + b"[]]")),
    "zeros": lambda: ("model.safetensors", _safetensors(b"[" + b"0," * (7 * MIB) + b"0]")),
    "floats": lambda: ("model.safetensors", _safetensors(b"[" + b"1e9," * (4 * MIB - 9) + b"0]")),
    "nesting": lambda: ("model.safetensors", _safetensors(b"[" * (15 * MIB))),
    "nested objects": lambda: ("model.safetensors", _safetensors(b'{"a":' * (3 * MIB))),
    "one wide string": lambda: ("model.safetensors", _safetensors(b'{"' + b"a" * (15 * MIB) + "😀".encode() + b'":1}')),
    "one escaped string": lambda: (
        "model.safetensors",
        _safetensors(b'{"' + b"a" * (15 * MIB) + b'\\ud83d\\ude00":1}'),
    ),
    "long integer": lambda: ("model.safetensors", _safetensors(b'{"a":' + b"9" * (15 * MIB) + b"}")),
    "metadata": lambda: (
        "model.safetensors",
        _safetensors(b'{"__metadata__":{' + b",".join(b'"%d":""' % i for i in range(1_000_000)) + b"}}"),
    ),
    "config of empty objects": lambda: ("config.json", b'{"a":[' + b"{}," * 340_000 + b"{}]}"),
    "config too long": lambda: ("config.json", b'{"a":"' + b"x" * (2 * MIB) + b'"}'),
    "index of empty objects": lambda: (INDEX_NAME, b'{"weight_map":[' + b"{}," * (5 * MIB) + b"{}]}"),
    "index entries": lambda: (
        INDEX_NAME,
        b'{"weight_map":{' + b",".join(b'"%d":"a.safetensors"' % i for i in range(100_000)) + b"}}",
    ),
    "empty strings": lambda: ("x.gguf", _gguf(_array(8, 200_000, bytes(1_600_000)), 1, INFO)),
    "short strings": lambda: (
        "x.gguf",
        _gguf(_array(8, 200_000, (struct.pack("<Q", 2) + "é".encode()) * 200_000), 1, INFO),
    ),
    "too many strings": lambda: ("x.gguf", _gguf(_array(8, 1_900_000, bytes(15_200_000)), 1, INFO)),
    "numbers": lambda: ("x.gguf", _gguf(_array(0, 15 * MIB, bytes(15 * MIB)), 1, INFO)),
    "one long string in a header": lambda: (
        "x.gguf",
        _gguf(_string(b"a") + struct.pack("<I", 8) + _string(b"a" * (15 * MIB - 4) + "😀".encode()), 1, INFO),
    ),
    "metadata pairs": lambda: (
        "x.gguf",
        _gguf(b"".join(_string(b"%d" % i) + b"\7\0\0\0\0" for i in range(65_000)), 65_000, INFO),
    ),
    "tensor infos": lambda: (
        "x.gguf",
        _gguf(b"", 0, b"".join(_string(b"%d" % i) + INFO[9:] for i in range(100_000)), 100_000),
    ),
    "header without end": lambda: ("x.gguf", _gguf(_array(0, 20 * MIB, bytes(20 * MIB)), 1, INFO)),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_does_not_go_off(bomb: str, tmp_path: Path) -> None:
    name, data = BOMBS[bomb]()
    if name == "x.gguf":
        target = tmp_path / name
    else:
        target = write_hf(tmp_path / "m", tiny_llama(**SMALL), max_shard_bytes=20_000) / name
        if name == "model.safetensors":
            (tmp_path / "m" / INDEX_NAME).unlink()
    target.write_bytes(data)
    path = target if name == "x.gguf" else tmp_path / "m"
    size = len(data)
    del data
    _refused_in_bounds(size, lambda: open_checkpoint(path))


def test_a_million_strings_are_passed_over_in_time(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(_gguf(_array(8, 1_000_000, bytes(8_000_000)), 1, INFO))
    started = time.process_time()
    with pytest.raises(CheckpointError, match=r"general.architecture"):
        open_checkpoint(path)
    assert time.process_time() - started < MAX_SECONDS


def test_a_good_header_does_not_make_its_tokenizer_a_bomb(tmp_path: Path) -> None:
    # The arrays are skipped when the file is opened; they are paid for when they are asked for.
    model = tiny_llama(tie_embeddings=True, num_layers=1, dim=2, num_heads=1, num_kv_heads=1, head_dim=2, ffn_dim=2)
    fields = TokenizerFields(model="llama", tokens=[f"é{i}" for i in range(320)], merges=["é"] * 900_000)
    path = write_gguf(tmp_path / "x.gguf", model, tokenizer=fields)
    with open_checkpoint(path) as reader:
        message = _refused_in_bounds(path.stat().st_size, reader.tokenizer_source)
    assert "would take more memory" in message


PICKLE_BOMBS = {
    "lists": b"\x80\x02" + b"]" * (4 * MIB) + b".",
    "dicts": b"\x80\x02" + b"}" * (4 * MIB) + b".",
    "marks": b"\x80\x02" + b"(" * (4 * MIB) + b".",
    "tuples": b"\x80\x02)" + b"\x85" * (4 * MIB) + b".",
    "memo": b"\x80\x02N" + b"".join(b"r" + struct.pack("<I", i) for i in range(800_000)) + b".",
    "wide text": b"\x80\x02X" + struct.pack("<I", 12 * MIB) + b"a" * (12 * MIB - 4) + "😀".encode() + b".",
    "same text again": b"\x80\x02X\1\0\0\0aq\0" + b"h\0" * (4 * MIB) + b".",
    "keys": b"\x80\x02}(" + b"".join(b"X\4\0\0\0%04dN" % i for i in range(10_000)) * 2 + b"u.",
}


@pytest.mark.parametrize("bomb", PICKLE_BOMBS)
def test_a_pickle_bomb_does_not_go_off(bomb: str, tmp_path: Path) -> None:
    directory = write_meta(tmp_path / "m", tiny_llama(tie_embeddings=False, **SMALL))
    path = directory / "consolidated.00.pth"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("a/data.pkl", PICKLE_BOMBS[bomb])
    _refused_in_bounds(path.stat().st_size, lambda: open_checkpoint(directory))


def test_a_zip_of_very_many_members_is_read_in_time(tmp_path: Path) -> None:
    directory = write_meta(tmp_path / "m", tiny_llama(tie_embeddings=False, **SMALL))
    path = directory / "consolidated.00.pth"
    with zipfile.ZipFile(path, "w") as out:
        for number in range(60_000):
            out.writestr(f"a/data/{number}", b"")
    _refused_in_bounds(path.stat().st_size, lambda: open_checkpoint(directory))


def test_tensors_that_share_bytes_cannot_multiply(tmp_path: Path) -> None:
    # Ten thousand names for one storage would make a file of a few kilobytes into gigabytes when converted.
    directory = write_meta(tmp_path / "m", tiny_llama(tie_embeddings=False, **SMALL))
    shared = torch.zeros(64, 64)
    torch.save({f"layers.{i}.attention.wq.weight": shared for i in range(2000)}, directory / "consolidated.00.pth")
    with pytest.raises(CheckpointError, match="share bytes"):
        open_checkpoint(directory)


def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path: Path) -> None:
    directory = write_hf(tmp_path / "m", tiny_llama(**SMALL))
    (directory / "config.json").unlink()
    os.mkfifo(directory / "config.json")
    with pytest.raises(CheckpointError, match="is not a regular file"):
        open_checkpoint(directory)


def test_a_config_of_another_size_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    directory = write_hf(tmp_path / "m", tiny_llama(**SMALL))
    values = json.loads((directory / "config.json").read_text())
    huge = values | {"vocab_size": 2**31 - 1, "hidden_size": 2**31 - 2, "intermediate_size": 2**31 - 1}
    (directory / "config.json").write_text(json.dumps(huge | {"head_dim": 2**31 - 2, "num_hidden_layers": 11_111}))
    assert "has 11111 layers" in _refused_in_bounds(50_000, lambda: load_model(directory))
    (directory / "config.json").write_text(json.dumps(huge))
    assert "of the wrong shape" in _refused_in_bounds(50_000, lambda: load_model(directory))


def test_a_copy_of_the_good_files_is_really_good(tmp_path: Path) -> None:
    for kind in MUTATORS:
        _good(kind, tmp_path / kind)
        shutil.copytree(tmp_path / kind, tmp_path / "copy" / kind)
        load_model(tmp_path / "copy" / kind)
