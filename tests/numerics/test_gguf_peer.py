"""GGUF files against two peers: the `gguf` package (reader, writer, decoder) and llama.cpp itself.

llama.cpp computes with quantized activations, half-precision keys and its own kernels, so only the tokens
are compared, on a model whose choices are far apart.
"""

from __future__ import annotations

import contextlib
import itertools
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
from llamakit.core.model_config import RopeScaling
from llamakit.models.llama import Llama

CYCLE, NUM_GREEDY = 8, 32
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


@pytest.fixture(scope="module", params=["plain", "scaled"])
def copying_model(request: pytest.FixtureRequest) -> Llama:
    """A model trained to go on with a cycle of eight tokens: right only with right attention and positions.

    Its choices are about seven logits apart, so kernels that round differently still agree on every token.
    """
    changes = SCALED | {"rope_scaling": RopeScaling(factor=32.0)} if request.param == "scaled" else {}
    torch.manual_seed(0)
    model = _model(num_layers=2, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.2 if parameter.ndim > 1 else 1.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    for _ in range(300):
        ids = torch.randint(3, model.config.vocab_size, (16, CYCLE)).repeat(1, 5)
        logits = model(ids[:, :-1])[:, CYCLE - 1 :]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, CYCLE:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    return model.eval()


@torch.no_grad()
def _greedy(model: Llama, prompt: list[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    for _ in range(count):
        ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], dim=1)
    return ids[0, len(prompt) :].tolist()


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_llama_cpp_continues_with_the_same_tokens(
    quantization: str, copying_model: Llama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not in the test extra")
    defaults = llama_cpp.llama_cpp.llama_model_default_params

    def as_stored() -> object:
        # No repacking for the processor at hand: the blocks of the file are what is tested, and llama.cpp 0.3.36
        # crashes in its AMX buffers on some machines.
        parameters = defaults()
        parameters.use_extra_bufts = False
        return parameters

    monkeypatch.setattr(llama_cpp.llama_cpp, "llama_model_default_params", as_stored)
    path = write_gguf(tmp_path / "model.gguf", copying_model, quantization=quantization)
    ours = load_model(path, dtype=torch.float32).model
    seeded = torch.Generator().manual_seed(5)
    with contextlib.closing(llama_cpp.Llama(str(path), n_ctx=512, n_threads=2, verbose=False)) as peer:
        for _ in range(4):
            prompt = (3 + torch.randperm(copying_model.config.vocab_size - 3, generator=seeded))[:CYCLE].tolist()
            theirs = list(itertools.islice(peer.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0), NUM_GREEDY))
            assert _greedy(ours, prompt, NUM_GREEDY) == theirs
            assert theirs == (prompt * 4)[:NUM_GREEDY], "the model has not learned its cycle"
            peer.reset()
