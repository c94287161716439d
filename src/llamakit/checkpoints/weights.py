"""Weights as loaders and writers see them: names with shapes, and one tensor at a time.

A `Reader` is such a source; `as_weights` makes one of a model or of tensors in memory. `check_weights` is the
one place that compares a source with its config.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from llamakit.checkpoints.names import TENSORS_PER_LAYER, expected_shapes
from llamakit.checkpoints.stored import PLAIN, TensorInfo
from llamakit.core.errors import CheckpointError
from llamakit.core.model_config import ModelConfig

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

_MAX_LISTED = 200
_LAYER = re.compile(r"(model\.layers\.)([0-9]+)(\..+)")


class Weights(Protocol):
    """Tensors by canonical name."""

    def infos(self) -> Mapping[str, TensorInfo]:
        """Shape and dtype of each tensor."""
        ...

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """One tensor, in `dtype` if given."""
        ...


class _Held:
    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def infos(self) -> Mapping[str, TensorInfo]:
        return {
            name: TensorInfo(
                shape=tuple(tensor.shape),
                dtype=tensor.dtype,
                encoding=PLAIN[tensor.dtype].name if tensor.dtype in PLAIN else str(tensor.dtype),
                nbytes=tensor.nbytes,
            )
            for name, tensor in self._tensors.items()
        }

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        return self._tensors[name].detach().to("cpu", dtype)


def as_weights(source: Weights | nn.Module | Mapping[str, Tensor]) -> Weights:
    """The state of a module, or tensors under canonical names, as a source of weights; a source stays itself."""
    if isinstance(source, nn.Module):
        return _Held(source.state_dict())
    return _Held(source) if isinstance(source, Mapping) else source


def natural_dtype(infos: Mapping[str, TensorInfo]) -> torch.dtype:
    """The dtype to hold a checkpoint in when nobody says: as most weights are stored, bfloat16 for quantized ones."""
    sizes: Counter[torch.dtype] = Counter()
    for info in infos.values():
        plain = info.encoding == PLAIN[info.dtype].name if info.dtype in PLAIN else False
        sizes[info.dtype if plain else torch.bfloat16] += info.nbytes
    dtype = sizes.most_common(1)[0][0] if sizes else torch.bfloat16
    return torch.float32 if dtype == torch.float64 else dtype


def check_weights(infos: Mapping[str, TensorInfo], config: ModelConfig, where: object) -> None:
    """Raise one `CheckpointError` that lists every missing, unexpected and mis-shaped tensor of `where`."""
    # Listing is for files that nearly fit; a config may claim any number of layers.
    if config.num_layers * TENSORS_PER_LAYER > 2 * len(infos) + _MAX_LISTED:
        raise CheckpointError(
            f"{where}: the config has {config.num_layers} layers of {TENSORS_PER_LAYER} tensors, "
            f"but only {len(infos)} tensors are stored"
        )
    wanted = expected_shapes(config)
    faults = {
        "missing": [(name, "") for name in wanted if name not in infos],
        "unexpected": [(name, "") for name in infos if name not in wanted],
        "of the wrong shape": [
            (name, f" wanted {list(shape)} found {list(infos[name].shape)}")
            for name, shape in wanted.items()
            if name in infos and infos[name].shape != shape
        ],
    }
    listed = [f"{len(found)} {kind}: {_grouped(found)}" for kind, found in faults.items() if found]
    if listed:
        raise CheckpointError(f"{where}: the tensors do not fit the config; {'; '.join(listed)}")


def _grouped(found: Iterable[tuple[str, str]]) -> str:
    """Names with their remarks, equal ones of several layers written once: `model.layers.{0-15}.mlp...`."""
    groups: defaultdict[tuple[str, str, str], list[int]] = defaultdict(list)
    for name, remark in found:
        match = _LAYER.fullmatch(name)
        head, tail = (match[1], match[3]) if match else (name[:200], "")
        groups[head, tail[:200], remark].extend([int(match[2])] if match else [])
    texts = [
        f"{head}{'{' + _ranges(layers) + '}' if layers else ''}{tail}{remark}"
        for (head, tail, remark), layers in groups.items()
    ]
    more = f" and {len(texts) - _MAX_LISTED} more" if len(texts) > _MAX_LISTED else ""
    return ", ".join(texts[:_MAX_LISTED]) + more


def _ranges(numbers: Iterable[int]) -> str:
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in spans)
