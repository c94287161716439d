"""GGUF files against two peers: the `gguf` package (reader, writer, decoder) and llama.cpp itself.

llama.cpp computes with quantized activations and its own kernels, so only the tokens are compared, on a
model whose choices are far apart.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize as peer_dequantize
from tests.tiny import tiny_llama
from tests.unit.checkpoints.builders import write_gguf

from llamakit.checkpoints import names
from llamakit.checkpoints.gguf_recipes import QUANTIZATIONS
from llamakit.checkpoints.load import load_model
from llamakit.models.llama import Llama

SCALED = {"rope_theta": 500_000.0, "context_length": 131_072}


def _model(**changes: object) -> Llama:
    shape = {"dim": 256, "num_heads": 4, "head_dim": 64, "ffn_dim": 512, "num_layers": 4, "vocab_size": 384}
    return tiny_llama(3, **(shape | changes))


def _peer_tensors(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: peer_dequantize(tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_peer_reads_every_tensor_as_we_do(quantization: str, tmp_path: Path) -> None:
    model = _model(tie_embeddings=False)
    path = write_gguf(tmp_path / "model.gguf", model, quantization=quantization)
    theirs = _peer_tensors(path)
    loaded = load_model(path, dtype=torch.float32)
    for name, tensor in loaded.model.state_dict().items():
        heads = names.rotary_heads(name, model.config)
        stored = tensor if heads is None else names.to_neighbours(tensor, heads)
        other = theirs.pop(names.translate(name, "hf", "gguf"))
        assert np.array_equal(stored.numpy().ravel(), other.astype(np.float32).ravel()), name
    assert not theirs


def test_the_peer_reads_our_metadata(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", _model(), chat_template="{{ messages }}", name="tiny")
    fields = gguf.GGUFReader(path).fields
    assert fields["general.architecture"].contents() == "llama"
    assert fields["general.name"].contents() == "tiny"
    assert fields["llama.attention.head_count_kv"].contents() == 2
    assert fields["tokenizer.ggml.tokens"].contents()[259:262] == ["▁", "t", "h"]
    assert fields["tokenizer.ggml.scores"].contents()[261] == -2.0
    assert fields["tokenizer.ggml.add_bos_token"].contents() is True
    assert fields["tokenizer.chat_template"].contents() == "{{ messages }}"


@pytest.mark.parametrize(("matrices", "tolerance"), [("F32", 1e-6), ("F16", 5e-3), ("Q8_0", 0.15)])
def test_we_read_what_the_peer_writes(matrices: str, tolerance: float, tmp_path: Path) -> None:
    model = _model(num_layers=2)
    config, path = model.config, tmp_path / "peer.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.ffn_dim)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"t{i}" for i in range(config.vocab_size)])
    writer.add_token_scores([float(-i) for i in range(config.vocab_size)])
    writer.add_token_types([1] * config.vocab_size)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ hello }}")
    for name, tensor in model.state_dict().items():
        heads = names.rotary_heads(name, config)
        stored = (tensor if heads is None else names.to_neighbours(tensor, heads)).numpy()
        kind = gguf.GGMLQuantizationType.F32 if tensor.ndim == 1 else gguf.GGMLQuantizationType[matrices]
        writer.add_tensor(names.translate(name, "hf", "gguf"), gguf.quants.quantize(stored, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    loaded = load_model(path, dtype=torch.float32)
    assert loaded.config == config
    assert loaded.metadata.chat_template == "{{ hello }}"
    assert loaded.metadata.quantization == matrices
    assert loaded.tokenizer_source.tokens[5] == "t5"
    assert loaded.generation.eos_ids == (2,)
    ids = torch.arange(50)[None]
    with torch.no_grad():
        difference = (loaded.model(ids) - model(ids)).abs().max() / model(ids).abs().max()
    assert difference < tolerance


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.parametrize("rope", ["plain", "scaled"])
@pytest.mark.parametrize("quantization", ["f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0"])
def test_llama_cpp_continues_with_the_same_tokens(quantization: str, rope: str, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not in the test extra")
    from llamakit.core.model_config import RopeScaling

    changes = SCALED | {"rope_scaling": RopeScaling(factor=32.0)} if rope == "scaled" else {}
    model = _model(**changes)
    path = write_gguf(tmp_path / "model.gguf", model, quantization=quantization)
    ours = load_model(path, dtype=torch.float32).model
    peer = llama_cpp.Llama(str(path), n_ctx=512, n_threads=2, verbose=False, logits_all=False)
    prompt = [1, 300, 301, 302, 17, 250, 90]
    theirs = [token for token, _ in zip(peer.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0), range(64))]
    ids = torch.tensor([prompt])
    with torch.no_grad():
        for _ in theirs:
            ids = torch.cat([ids, ours(ids)[:, -1:].argmax(-1)], dim=1)
    assert ids[0, len(prompt) :].tolist() == theirs
