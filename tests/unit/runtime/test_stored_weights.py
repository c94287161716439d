"""Quantized files through the whole road: opened without a flag, computed with as stored, exact in any batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.tiny import tiny_checkpoint

from llamakit.checkpoints.convert import convert
from llamakit.core.sampling import SamplingParams
from llamakit.engine.engine import Engine
from llamakit.hub.locate import resolve_model
from llamakit.hub.modelfile import Modelfile
from llamakit.kernels import native
from llamakit.models.llama import Llama
from llamakit.quant.fused import FusedLayer
from llamakit.quant.grouped import CorrectedLinear, GroupedEmbedding, GroupedLinear
from llamakit.quant.linear import QuantizedLinear
from llamakit.runtime import assembly, packing
from llamakit.runtime.llm import LLM
from llamakit.runtime.opening import LoadOptions

PROMPTS = [[5, 9, 200, 17, 3], [44] * 40, [7, 8], list(range(100, 190))]
SAMPLING = SamplingParams(temperature=0.0, max_tokens=12)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if native.library() is None:
        pytest.skip("no compiled kernels here; build them with `python -m llamakit.kernels.cpu.build`")
    monkeypatch.setenv("LLAMA_HOME", str(tmp_path / "home"))
    return convert(tiny_checkpoint(tmp_path / "source"), tmp_path / "x.gguf", quantization="q4_0").path


def opened(file: Path, **options: object) -> Iterator[LLM]:
    llm = LLM.load(str(file), options=LoadOptions(cache_bytes=1 << 24, **options))  # type: ignore[arg-type]
    try:
        yield llm
    finally:
        llm.close()


def test_a_token_is_the_same_alone_and_in_company(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for llm in opened(file):
        model = llm.opened.model
        assert isinstance(model.get_submodule("model.layers.0.self_attn.q_proj"), GroupedLinear)
        assert isinstance(model.get_submodule("model.embed_tokens"), GroupedEmbedding)
        together = llm.complete_ids(PROMPTS, SAMPLING)
    # The second start maps what the first one packed, and does not know the file's blocks any more.
    monkeypatch.setattr(packing, "load_model", lambda *_, **__: pytest.fail("read the weights again"))
    for llm in opened(file):
        alone = [llm.complete_ids([prompt], SAMPLING)[0] for prompt in PROMPTS]
    assert alone == together


def test_plain_numbers_are_there_for_who_asks(file: Path) -> None:
    for llm in opened(file, quantize="none"):
        assert not any(isinstance(module, GroupedLinear) for module in llm.opened.model.modules())
        assert len(llm.complete_ids(PROMPTS[:1], SAMPLING)[0]) > 0


@pytest.mark.parametrize("quantize", ["auto", "int4", "int8"])
def test_a_draft_is_loaded_the_way_the_model_is(file: Path, monkeypatch: pytest.MonkeyPatch, quantize: str) -> None:
    expected: list[list[int]] = []
    for llm in opened(file, quantize=quantize):
        expected = llm.complete_ids(PROMPTS, SAMPLING)
    drafts: list[Llama] = []

    def engine(*args: Any, draft: Llama, **options: Any) -> Engine:
        drafts.append(draft)
        return Engine(*args, draft=draft, **options)

    monkeypatch.setattr(assembly, "Engine", engine)
    for llm in opened(file, quantize=quantize, draft=str(file)):
        assert llm.complete_ids(PROMPTS, SAMPLING) == expected
    kind = GroupedLinear if quantize == "auto" else QuantizedLinear
    assert isinstance(drafts[0].get_submodule("model.layers.0.self_attn.q_proj"), kind)
    assert isinstance(drafts[0].get_submodule("model.layers.0"), FusedLayer)


@pytest.mark.parametrize("quantize", ["auto", "int4", "int8"])
def test_adapters_stand_beside_integers(file: Path, tmp_path: Path, quantize: Any) -> None:
    adapter, down = tmp_path / "adapter", "model.layers.0.mlp.down_proj"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 64}))
    factors = {f"{down}.lora_A.weight": torch.randn(2, 96), f"{down}.lora_B.weight": torch.randn(64, 2)}
    save_file(factors, adapter / "adapter_model.safetensors")
    located = replace(resolve_model(str(file)), recipe=Modelfile(base=str(file), adapters=(str(adapter),)))
    model = assembly.assemble(located, LoadOptions(cache_bytes=1 << 24, quantize=quantize)).model
    assert isinstance(model.get_submodule(down), CorrectedLinear)
    assert isinstance(model.get_submodule(f"{down}.base"), GroupedLinear if quantize == "auto" else QuantizedLinear)
