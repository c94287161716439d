from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from tests.tiny import tiny_checkpoint
from tests.unit.checkpoints import mutation
from tests.unit.checkpoints.builders import QLORA, write_published
from tests.unit.checkpoints.test_meta_quantized import CONFIG

from llamakit.checkpoints.convert import convert
from llamakit.checkpoints.load import STORED, load_model
from llamakit.checkpoints.open import open_checkpoint
from llamakit.checkpoints.packed import PACKED_NAME
from llamakit.checkpoints.packed_write import save_packed_directory
from llamakit.core.errors import CheckpointError, ConfigError
from llamakit.kernels import native
from llamakit.quant.packed_file import MAGIC
from llamakit.text.tokenizer import load_tokenizer

IDS = torch.arange(12)[None] * 5


@pytest.fixture(autouse=True)
def kernels() -> None:
    if native.library() is None:
        pytest.skip("no compiled kernels here; build them with `python -m llamakit.kernels.cpu.build`")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "source", dtype=torch.bfloat16)


@pytest.mark.parametrize("scheme", ["int4", "int8"])
@torch.no_grad()
def test_what_is_written_computes_as_what_was_packed(scheme: str, source: Path, tmp_path: Path) -> None:
    done = convert(source, tmp_path / "out", quantization=scheme)
    with open_checkpoint(done.path) as reader, open_checkpoint(source) as original:
        assert (reader.kind, reader.is_quantized()) == ("packed", True)
        assert reader.config() == original.config()
        assert reader.generation() == original.generation()
        assert load_tokenizer(reader.tokenizer_source()).vocab_size == 512
        assert reader.metadata().quantization == scheme.upper()
        assert reader.metadata().num_bytes < original.metadata().num_bytes
        # The floats it stands for are near those of the source.
        for name in original.names():
            found, plain = reader.tensor(name, torch.float32), original.tensor(name, torch.float32)
            assert (found - plain).norm() < (0.1 if scheme == "int4" else 0.02) * plain.norm(), name
    packed = load_model(source, dtype=torch.bfloat16, scheme=scheme).model
    again = load_model(done.path, dtype=torch.bfloat16, scheme=STORED).model
    assert torch.equal(again(IDS), packed(IDS))


@torch.no_grad()
def test_corrections_and_rotations_are_kept(tmp_path: Path) -> None:
    for name, params in (
        ("qlora", QLORA),
        ("spin", {"quantization_args": QLORA["quantization_args"] | {"spinquant": True}}),
    ):
        path = write_published(tmp_path / name, CONFIG, **params)
        with open_checkpoint(path) as reader:
            out = save_packed_directory(reader, tmp_path / f"{name}-out", STORED)
            with open_checkpoint(out) as again:
                for tensor in ("model.layers.0.mlp.down_proj.weight", "model.layers.0.self_attn.q_proj.weight"):
                    torch.testing.assert_close(again.tensor(tensor), reader.tensor(tensor), rtol=1e-2, atol=1e-2)
        first, second = (load_model(p, dtype=torch.bfloat16, scheme=STORED).model for p in (path, out))
        assert torch.equal(first(IDS), second(IDS))


def test_wishes_that_do_not_fit_are_refused(source: Path, tmp_path: Path) -> None:
    for target, options, message in (
        ("x.gguf", {"quantization": "int4"}, "written as a directory"),
        ("x", {"quantization": "q4_0"}, "written as GGUF"),
        ("x", {"quantization": "int3"}, "no quantization 'int3'; there are .*q4_0.*int4"),
        ("x", {"quantization": "int4", "dtype": torch.float32}, "leave out the dtype"),
        ("source", {"quantization": "int4"}, "exists"),
    ):
        with pytest.raises(ConfigError, match=message):
            convert(source, tmp_path / target, **options)  # type: ignore[arg-type]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source", "source-tokenizer"]


def test_rounding_twice_is_said(source: Path, tmp_path: Path) -> None:
    gguf = convert(source, tmp_path / "x.gguf", quantization="q8_0")
    assert not any("quantized already" in note for note in gguf.notes)
    assert any("quantized already" in note for note in convert(gguf.path, tmp_path / "y", quantization="int4").notes)
    assert not any("quantized already" in note for note in convert(gguf.path, tmp_path / "z").notes)


def test_damaged_files_are_refused_or_read(source: Path, tmp_path: Path) -> None:
    out = convert(source, tmp_path / "out", quantization="int4").path
    file = out / PACKED_NAME
    whole = file.read_bytes()
    length = int.from_bytes(whole[len(MAGIC) : len(MAGIC) + 8], "little")
    start = len(MAGIC) + 8
    header, rest = json.loads(whole[start : start + length]), whole[-(-(start + length) // 64) * 64 :]
    refused = 0
    for number in range(400):
        rng = random.Random(number)
        if number % 3:
            text = json.dumps(mutation.mutate_json(rng, header, len(whole))).encode()
            head = MAGIC + len(text).to_bytes(8, "little") + text
            mutant = head + bytes(-len(head) % 64) + rest
        else:
            mutant = mutation.mutate_bytes(rng, whole, start + length)
        file.unlink()
        file.write_bytes(mutant)
        try:
            with open_checkpoint(out) as reader:
                reader.metadata()
            load_model(out, dtype=torch.bfloat16, scheme=STORED)
        except CheckpointError as error:
            refused += 1
            assert len(str(error)) < 4000
    assert refused > 100
