from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny import tiny_llama
from tests.unit.checkpoints.builders import write_gguf

from llamakit.checkpoints import gguf_blocks as types
from llamakit.checkpoints.gguf import GgufReader
from llamakit.checkpoints.gguf_groups import GROUPED_ENCODINGS
from llamakit.checkpoints.gguf_write import save_gguf
from llamakit.checkpoints.load import STORED, load_model
from llamakit.kernels.grouped import GroupedWeight
from llamakit.models.llama import Llama
from llamakit.quant.grouped import GroupedEmbedding, GroupedLinear

SHAPE = {"dim": 256, "num_heads": 4, "head_dim": 64, "ffn_dim": 512, "num_layers": 2, "vocab_size": 384}
EXACT = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"}
KINDS = [types.Q4_0, types.Q4_1, types.Q5_0, types.Q5_1, types.Q8_0, types.Q4_K, types.Q5_K, types.Q6_K]


def model(**changes: object) -> Llama:
    return tiny_llama(3, **(SHAPE | changes))  # type: ignore[arg-type]


def written(path: Path, kind: int, monkeypatch: pytest.MonkeyPatch) -> GgufReader:
    """A file whose matrices are all of one type."""
    from llamakit.checkpoints import gguf_write

    monkeypatch.setattr(gguf_write, "tensor_type", lambda _, shape, *__: kind if len(shape) > 1 else types.F32)
    source = model()
    save_gguf(source, source.config, path / "x.gguf", quantization="q4_0")
    return GgufReader(path / "x.gguf")


@pytest.mark.parametrize("kind", KINDS)
def test_groups_stand_for_the_numbers_of_the_blocks(kind: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = types.type_name(kind)
    with written(tmp_path, kind, monkeypatch) as reader:
        assert reader.is_quantized()
        matrices = [name for name, info in reader.infos().items() if len(info.shape) == 2]
        assert len(matrices) == 15
        for name in matrices:
            stored, plain = reader.matrix(name), reader.tensor(name, torch.float32)
            assert stored is not None
            assert isinstance(stored.weight, GroupedWeight)
            values = stored.weight.values()
            if encoding in EXACT:
                assert torch.equal(values, plain), name
            # The rest: see the module. Q6_K itself errs by some 4e-4 of the weights' energy, Q4_K by 5e-3.
            limit = 0.0 if encoding in EXACT else 4e-5 if encoding == "Q6_K" else 1e-6
            assert (values - plain).square().sum() <= limit * plain.square().sum()
        assert all(reader.matrix(name) is None for name, info in reader.infos().items() if len(info.shape) == 1)


def test_the_encodings_are_all_that_are_read() -> None:
    assert {types.type_name(kind) for kind in KINDS} == GROUPED_ENCODINGS
    plain = {encoding.name for encoding in types.ENCODINGS.values() if encoding.decode is None}
    assert {encoding.name for encoding in types.ENCODINGS.values()} == GROUPED_ENCODINGS | plain


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("quantization", ["q4_0", "q8_0", "q4_k_m"])
@torch.no_grad()
def test_a_model_computes_with_the_weights_as_stored(quantization: str, tied: bool, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", model(tie_embeddings=tied), quantization=quantization)
    ids = torch.arange(40)[None] * 7 % 384
    plain = load_model(path, dtype=torch.float32).model(ids)
    loaded = load_model(path, dtype=torch.float32, scheme=STORED).model
    assert isinstance(loaded.get_submodule("model.layers.1.mlp.down_proj"), GroupedLinear)
    assert isinstance(loaded.get_submodule("model.embed_tokens"), GroupedEmbedding)
    assert all(parameter.ndim == 1 for parameter in loaded.parameters())
    out = loaded(ids)
    # What differs is the rounding of activations to 8 bits.
    assert torch.cosine_similarity(out.flatten(), plain.flatten(), dim=0) > 0.999


def test_plain_files_have_no_matrices_in_integers(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", model(), quantization="bf16")
    with GgufReader(path) as reader:
        assert not reader.is_quantized()
        assert reader.matrix("model.layers.0.mlp.up_proj.weight") is None
    assert all(p.ndim <= 2 for p in load_model(path, scheme=STORED).model.parameters())
