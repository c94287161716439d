"""Swap the matrices of any module for packed ones, one at a time.

A matrix is whatever has a two-dimensional `weight` parameter: a linear layer (`in_features`,
`out_features`) or an embedding. Which of the linear layers is a head, only its place tells: it stands
outside every layer list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from llamakit.core.errors import ConfigError
from llamakit.kernels.grouped import GroupedWeight
from llamakit.kernels.packed import Bits, PackedWeight, pack
from llamakit.kernels.table import TableWeight, pack_table, table_parts
from llamakit.quant.grouped import CorrectedLinear, GroupedEmbedding, GroupedLinear, LowRank
from llamakit.quant.linear import QuantizedEmbedding, QuantizedLinear, TableHead
from llamakit.quant.schemes import Scheme, resolve_scheme

Weight = PackedWeight | GroupedWeight | TableWeight
_KINDS = (QuantizedLinear, QuantizedEmbedding, TableHead, GroupedLinear, GroupedEmbedding)
_LARGE = 1 << 16
"""Rows from which on scoring a vocabulary in two passes is worth its memory."""

Progress = Callable[[int, int], None]
"""Called with the matrices done and their number."""


def quantize(model: nn.Module, scheme: str, *, progress: Progress | None = None) -> nn.Module:
    """Pack every matrix of a float CPU model in place and return it; each float matrix is freed as it is replaced.

    Raises ConfigError for an unknown scheme, a model elsewhere than on the CPU, or without the compiled kernels.
    """
    chosen = resolve_scheme(scheme)
    found = list(matrices(model))
    for done, (name, module) in enumerate(found, 1):
        weight = module.get_parameter("weight")
        if weight.device.type != "cpu":
            raise ConfigError(f"{name} is on {weight.device}; quantization wants the model on the CPU")
        install(model, name, _packed(model, name, module, weight.detach(), chosen), weight.dtype)
        if progress is not None:
            progress(done, len(found))
    return model


def packed_bytes(model: nn.Module) -> int:
    """Bytes of all packed weights in `model`."""
    return sum(module.weight.num_bytes for module in model.modules() if isinstance(module, _KINDS))


def parts(weight: Weight) -> dict[str, Tensor]:
    """The tensors of a packed weight by name."""
    if isinstance(weight, TableWeight):
        return table_parts(weight)
    if isinstance(weight, GroupedWeight):
        found = {"codes": weight.codes, "scales": weight.scales, "minima": weight.minima}
    else:
        found = {"codes": weight.codes, "multipliers": weight.multipliers, "scales": weight.scales}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def weight_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Everything that a forward pass reads of a model: plain parameters and the parts of packed ones."""
    yield from (parameter.detach() for parameter in model.parameters())
    for module in model.modules():
        if isinstance(module, _KINDS):
            yield from parts(module.weight).values()


def pack_matrix(model: nn.Module, name: str, weight: Tensor, scheme: Scheme) -> bool:
    """Pack the weight of the module `name` of a model, which may be on `meta`; False when it is no matrix."""
    module = model.get_submodule(name)
    if weight.ndim != 2 or not (_is_table(module) or hasattr(module, "in_features")):
        return False
    install(model, name, _packed(model, name, module, weight, scheme), weight.dtype)
    return True


def _packed(model: nn.Module, name: str, module: nn.Module, weight: Tensor, scheme: Scheme) -> Weight:
    if scheme.two_pass_head and weight.shape[0] >= _LARGE and _is_head(model, name, module):
        return pack_table(weight)
    return pack(weight, matrix_bits(name, module, scheme))


def matrices(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every linear layer and embedding that still has a float weight, by name."""
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is not None and weight.ndim == 2 and (_is_table(module) or hasattr(module, "in_features")):
            yield name, module


def matrix_bits(name: str, module: nn.Module, scheme: Scheme) -> Bits:
    """What the scheme gives a matrix."""
    return scheme.linear_bits if _is_in_a_layer(name) and not _is_table(module) else scheme.table_bits


def install(
    model: nn.Module,
    name: str,
    weight: Weight,
    dtype: torch.dtype,
    correction: LowRank | None = None,
) -> None:
    """Put a packed weight where the float module `name` stood.

    `dtype` is what an embedding hands out and what a correction is computed in. Only a plain packed weight takes a
    bias; an embedding takes no correction.
    """
    owner, _, leaf = name.rpartition(".")
    old = model.get_submodule(name)
    bias, new = old._parameters.get("bias"), None
    if isinstance(weight, PackedWeight):
        new = QuantizedEmbedding(weight, dtype) if _is_table(old) else QuantizedLinear(weight, bias)
    elif isinstance(weight, TableWeight):
        if bias is None:
            new = QuantizedEmbedding(weight, dtype) if _is_table(old) else TableHead(weight)
    elif bias is None:
        new = GroupedEmbedding(weight, dtype) if _is_table(old) else GroupedLinear(weight)
    if new is None or (correction is not None and _is_table(old)):
        raise ValueError(f"{name} has a bias or is a corrected table, which no such layer takes")
    setattr(model.get_submodule(owner), leaf, new if correction is None else CorrectedLinear(new, correction, dtype))


def _is_in_a_layer(name: str) -> bool:
    return any(part.isdigit() for part in name.split("."))


def _is_head(model: nn.Module, name: str, module: nn.Module) -> bool:
    """Whether a matrix scores the vocabulary: a linear layer outside the layers, or the table of a tied model."""
    if _is_table(module):
        return "lm_head" in vars(model) | model._modules and getattr(model, "lm_head", None) is None
    return not _is_in_a_layer(name)


def _is_table(module: nn.Module) -> bool:
    return isinstance(module, nn.Embedding)
