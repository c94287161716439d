"""The planted circuit copies before any training, and refuses shapes it does not fit."""

from __future__ import annotations

import pytest

from llamakit.core.errors import ConfigError
from llamakit.core.model_config import ModelConfig
from llamakit.data.copying import repeats
from llamakit.data.packing import pack
from llamakit.models.llama import build, initialize
from llamakit.training.loader import make_batch
from llamakit.training.planting import plant_copying


def _config(**changes) -> ModelConfig:
    shape = {
        "vocab_size": 1024, "dim": 256, "num_layers": 3, "num_heads": 4, "num_kv_heads": 2, "head_dim": 64,
        "ffn_dim": 256, "tie_embeddings": True, "context_length": 512,
    }  # fmt: skip
    return ModelConfig(**(shape | changes))


def test_a_planted_model_copies_without_training():
    model = build(_config(), device="cpu")
    initialize(model, 0)
    documents = [repeats(0, n, first_id=0, num_ids=1000, start_id=1000, length=128) for n in range(8)]
    batch = make_batch(pack(documents, (128,), 1001), all_tokens=False)

    def right() -> float:
        scores = model(batch.ids_BT, positions_BT=batch.positions_BT, documents_BT=batch.documents_BT)
        found = scores.flatten(0, 1)[batch.places_M].argmax(-1)
        return (found == batch.targets_M).float().mean().item()

    assert right() < 0.05
    plant_copying(model, 0)
    assert right() > 0.5


@pytest.mark.parametrize("changes", [{"num_layers": 1}, {"tie_embeddings": False}, {"num_kv_heads": 1}, {"dim": 128}])
def test_shapes_without_room_are_refused(changes):
    model = build(_config(**changes), device="cpu")
    initialize(model, 0)
    with pytest.raises(ConfigError, match="copying needs two layers"):
        plant_copying(model, 0)
