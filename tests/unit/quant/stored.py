"""Models with weights in groups of 32, as files store them."""

from __future__ import annotations

import torch
from torch import nn

from llamakit.kernels.grouped import GroupedWeight, group
from llamakit.quant.convert import install, matrices

FORMS = {"q4_0": (4, False), "q4_k": (4, True), "q8_0": (8, False), "mixed": (4, True)}
"""Bits and whether there are minima; of `mixed`, values and down projections have bytes, as in Q4_K_M."""


def random_weight(columns: int, depth: int, bits: int, minima: bool, generator: torch.Generator) -> GroupedWeight:
    """Weights of about 0.1 in size."""
    groups = depth // 32
    codes = torch.randint(0, 256, (columns, groups, 4 * bits), generator=generator, dtype=torch.uint8)
    scales = torch.rand(columns, groups, generator=generator) * 3.2 / 2**bits
    least = (scales * 2 ** (bits - 1)).half() if minima else None
    return group(codes, scales.half(), least)


def store(model: nn.Module, form: str) -> nn.Module:
    """Give every matrix of a model random weights of a form, in place; each must be made of whole groups."""
    generator = torch.Generator().manual_seed(0)
    for name, module in list(matrices(model)):
        columns, depth = module.get_parameter("weight").shape
        bits, minima = FORMS[form]
        if form == "mixed" and name.endswith(("v_proj", "down_proj")):
            bits, minima = 8, False
        dtype = module.get_parameter("weight").dtype
        install(model, name, random_weight(columns, depth, bits, minima, generator), dtype)
    return model
