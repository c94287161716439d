from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_config, tiny_llama

from llamakit.checkpoints import names

PAIRS = [
    ("model.embed_tokens.weight", "tok_embeddings.weight", "token_embd.weight"),
    ("model.norm.weight", "norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight", "output.weight"),
    ("model.layers.0.self_attn.q_proj.weight", "layers.0.attention.wq.weight", "blk.0.attn_q.weight"),
    ("model.layers.12.self_attn.o_proj.weight", "layers.12.attention.wo.weight", "blk.12.attn_output.weight"),
    ("model.layers.3.mlp.up_proj.weight", "layers.3.feed_forward.w3.weight", "blk.3.ffn_up.weight"),
    ("model.layers.3.mlp.down_proj.weight", "layers.3.feed_forward.w2.weight", "blk.3.ffn_down.weight"),
    ("model.layers.3.mlp.gate_proj.weight", "layers.3.feed_forward.w1.weight", "blk.3.ffn_gate.weight"),
    ("model.layers.9.post_attention_layernorm.weight", "layers.9.ffn_norm.weight", "blk.9.ffn_norm.weight"),
]


@pytest.mark.parametrize(("hf", "meta", "gguf"), PAIRS)
def test_one_tensor_has_one_name_in_each_world(hf: str, meta: str, gguf: str) -> None:
    worlds = {"hf": hf, "meta": meta, "gguf": gguf}
    for source in worlds:
        for target in worlds:
            assert names.translate(worlds[source], source, target) == worlds[target]


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.00.mlp.up_proj.weight",
        "model.layers.-1.mlp.up_proj.weight",
        "model.layers.1.mlp.up_proj.bias",
        "model.layers.1.mlp.up_proj.weight\n",
        "model.layers.١.mlp.up_proj.weight",
        "layers.1.attention.wq.weight",
        "",
    ],
)
def test_other_names_are_nobodys(name: str) -> None:
    assert names.translate(name, "hf", "gguf") is None


@pytest.mark.parametrize("tied", [False, True])
def test_the_expected_tensors_are_those_of_the_module(tied: bool) -> None:
    model = tiny_llama(tie_embeddings=tied, head_dim=24)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert names.expected_shapes(model.config) == shapes
    assert model.config.num_parameters == sum(tensor.numel() for tensor in model.parameters())


def test_rows_go_from_halves_to_neighbours_and_back() -> None:
    # Two heads of width 6: channel i of the first half pairs with i of the second.
    rows = torch.arange(12.0)[:, None].expand(12, 4).contiguous()
    neighbours = names.to_neighbours(rows, 2)
    assert neighbours[:, 0].tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    assert torch.equal(names.to_halves(neighbours, 2), rows)


def test_only_queries_and_keys_are_rotary() -> None:
    config = tiny_config(num_heads=4, num_kv_heads=2)
    heads = {name: names.rotary_heads(name, config) for name in names.expected_shapes(config)}
    assert heads.pop("model.layers.1.self_attn.q_proj.weight") == 4
    assert heads.pop("model.layers.1.self_attn.k_proj.weight") == 2
    assert heads["model.layers.1.self_attn.v_proj.weight"] is None
    assert heads["model.layers.1.self_attn.o_proj.weight"] is None
