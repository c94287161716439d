"""LoRA adapters in PEFT's layout, added to a loaded model: W + scale * B A (Hu et al., 2021).

Plain numbers take the sum, which costs nothing while generating. Beside packed weights the two factors stay as they are
and read the input before it is rounded: rounding the sum again would lose what the adapter learned. Keeping adapters
apart, for many over one model, is not done here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from llamakit.checkpoints.checked_file import read_json
from llamakit.checkpoints.fields import Fields
from llamakit.checkpoints.safetensors_file import SafetensorsFile
from llamakit.core.errors import CheckpointError, UnsupportedFormat
from llamakit.models.llama import Llama
from llamakit.quant.grouped import CorrectedLinear, GroupedLinear, LowRank
from llamakit.quant.linear import QuantizedLinear, TableHead

_TENSOR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])\.(?:default\.)?weight")
_CHANGES_MATHS = ("use_dora", "fan_in_fan_out", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern")


def add_adapter(model: Llama, directory: Path) -> int:
    """Add the adapter in `directory` to the weights of `model`; returns how many matrices changed.

    Wants `adapter_config.json` and `adapter_model.safetensors` with `lora_A [r, in]` and `lora_B [out, r]`.
    Nothing is changed when any part does not fit; the error lists every fault.
    """
    config = Fields(read_json(directory / "adapter_config.json"), directory / "adapter_config.json")
    if config.values.get("peft_type") != "LORA":
        raise UnsupportedFormat(f"{directory}: adapter type {config.values.get('peft_type')!r}; only LORA is known")
    for field in _CHANGES_MATHS:
        if config.values.get(field):
            raise UnsupportedFormat(f"{directory}: adapters with {field} are not supported")
    rank, alpha = config.integer("r"), config.number("lora_alpha")
    scale = alpha / (math.sqrt(rank) if config.flag("use_rslora", False) else rank)
    pairs = _pairs(directory / "adapter_model.safetensors")
    targets = {name: module for name, module in model.named_modules() if _shape(module) is not None}
    faults = [fault for name, pair in pairs.items() if (fault := _fault(name, pair, targets)) is not None]
    if faults:
        raise CheckpointError(f"{directory}: the adapter does not fit the model: {'; '.join(faults)}")
    with torch.no_grad():
        for name, pair in pairs.items():
            _add(model, name, LowRank(down=pair["A"], up=pair["B"], scale=scale))
    return len(pairs)


def _add(model: Llama, name: str, change: LowRank) -> None:
    module = model.get_submodule(name)
    weight = module._parameters.get("weight")
    if weight is None:
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, CorrectedLinear(module, change, model.dtype))
    else:
        product = change.up.to(weight.device).float() @ change.down.to(weight.device).float()
        # The weight may be a view of the file; a merged one gets memory of its own.
        weight.data = (weight.float() + change.scale * product).to(weight.dtype)


def _shape(module: nn.Module) -> tuple[int, int] | None:
    """Of a matrix that an adapter can be added to."""
    if isinstance(module, CorrectedLinear):
        return _shape(module.base)
    if isinstance(module, QuantizedLinear | GroupedLinear | TableHead):
        return module.weight.shape
    weight = module._parameters.get("weight")
    return None if weight is None or weight.ndim != 2 else (weight.shape[0], weight.shape[1])


def _pairs(path: Path) -> dict[str, dict[str, Tensor]]:
    pairs: dict[str, dict[str, Tensor]] = {}
    file = SafetensorsFile(path)
    try:
        for name, stored in file.tensors.items():
            match = _TENSOR.fullmatch(name)
            if match is None:
                raise UnsupportedFormat(f"{path}: {name} is not a lora_A or lora_B of a linear layer")
            pairs.setdefault(match[1], {})[match[2]] = stored.load()
    finally:
        file.close()
    if not pairs:
        raise CheckpointError(f"{path}: holds no adapter tensors")
    return pairs


def _fault(name: str, pair: dict[str, Tensor], targets: Mapping[str, nn.Module]) -> str | None:
    shape = _shape(targets[name]) if name in targets else None
    if shape is None:
        return f"the model has no {name} that takes one"
    if set(pair) != {"A", "B"}:
        return f"{name} has only lora_{next(iter(pair))}"
    a, b = pair["A"], pair["B"]
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or (b.shape[0], a.shape[1]) != shape:
        return f"{name} is {list(shape)}, lora_B {list(b.shape)} times lora_A {list(a.shape)}"
    return None
