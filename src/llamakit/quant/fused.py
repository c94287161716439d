"""Decoder layers that run in one call over a paged cache, or in three: norm to q, k, v; attention; the rest.

`fuse` puts such a layer where a plain one stood, with the same children under the same names. It calls the compiled
blocks when its parts are plain matrices, dense or packed, on the CPU without gradients; in every other case (an
adapter in place of a projection, say) the layer runs as it was written. The bits are the same both ways.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from llamakit.kernels import native
from llamakit.kernels.cpu.library import Layer, Library, Matrix, dense_matrix
from llamakit.kernels.int8_pool import Int8Pool
from llamakit.kernels.packed import PackedWeight
from llamakit.kernels.paged import PagedAttend
from llamakit.quant.linear import QuantizedLinear

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
_FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
_NORMS = ("input_layernorm", "post_attention_layernorm")


class _Bound(NamedTuple):
    """What the compiled blocks need of a layer, and the modules it was read from."""

    modules: list[nn.Module | None]
    gains: tuple[Tensor, Tensor]
    eps: tuple[float, float]
    attention: tuple[Matrix, Matrix, Matrix]
    feed_forward: tuple[Matrix, Matrix, Matrix, Matrix]
    dtype: torch.dtype
    head_dim: int
    layer: Layer


class FusedLayer(nn.Module):
    """Stands where the decoder layer `layer` stood; its parts stay where they were."""

    _plain: nn.Module

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        for name, child in layer.named_children():
            self.add_module(name, child)
        # Not a child: it shares its parts with this module, and no parameter should be listed twice.
        object.__setattr__(self, "_plain", layer)
        self._bound: _Bound | None = None
        self._places: list[tuple[dict[str, nn.Module | None], str]] = []
        self._seen: list[nn.Module | None] = []

    def forward(self, layer: int, x_NE: Tensor, rope: tuple[Tensor, Tensor], attend) -> Tensor:
        bound = self._bind()
        library = native.library()
        if (
            bound is None
            or library is None
            or torch.is_grad_enabled()
            or native.is_traced(x_NE)
            or x_NE.dtype != bound.dtype
        ):
            return self._plain(layer, x_NE, rope, attend)
        threads = native.num_threads()
        if isinstance(attend, PagedAttend):
            out = _run_whole(library, bound, layer, x_NE, rope, attend, threads)
            if out is not None:
                return out
        q, k, v = library.attention_inputs(
            x_NE, bound.gains[0], bound.eps[0], bound.attention, rope, bound.head_dim, threads
        )
        mixed = attend(layer, q, k, v)
        return library.feed_forward(x_NE, mixed, bound.gains[1], bound.eps[1], bound.feed_forward, threads)

    def __getstate__(self) -> dict[str, object]:
        """A copy has weights of its own and finds them itself."""
        return self.__dict__ | {"_bound": None, "_places": [], "_seen": []}

    def _apply(self, fn, recurse: bool = True):
        """Moving or casting the layer gives its weights new addresses."""
        self._seen = []
        return super()._apply(fn, recurse)

    def _bind(self) -> _Bound | None:
        # Asked for every layer of every token: looking at the places is all there is time for.
        seen = self._seen
        if not seen or any(where.get(name) is not old for (where, name), old in zip(self._places, seen, strict=True)):
            self._places = _places(self)
            self._seen = [where.get(name) for where, name in self._places]
            self._bound = _bind(_modules(self), self._plain)
        return self._bound


def _run_whole(
    library: Library,
    bound: _Bound,
    layer: int,
    x_NE: Tensor,
    rope: tuple[Tensor, Tensor],
    attend: PagedAttend,
    threads: int,
) -> Tensor | None:
    """The layer as one kernel; None for pools that the kernel does not read."""
    keys, values = attend.keys[layer], attend.values[layer]
    if isinstance(keys, Int8Pool) and isinstance(values, Int8Pool):
        pools, scales = (keys.codes, values.codes), (keys.scales, values.scales)
    elif isinstance(keys, Tensor) and isinstance(values, Tensor) and native.takes(keys, values):
        pools, scales = (keys, values), None
    else:
        return None
    heads = bound.layer.k.columns // bound.head_dim, bound.head_dim
    fitting = pools[0].shape == pools[1].shape and pools[0].shape[2:] == heads and attend.slots_N.dtype == torch.int64
    if not fitting or not all(pool.is_contiguous() for pool in (*pools, *(scales or ()))):
        return None
    return library.run_layer(x_NE, bound.layer, attend.step(rope), pools, scales, threads)


def fuse(model: nn.Module) -> nn.Module:
    """Replace every decoder layer of `model` in place by a fused one, and return the model."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if not isinstance(child, FusedLayer) and None not in _modules(child):
                module._modules[name] = FusedLayer(child)
    return model


def _modules(layer: nn.Module) -> list[nn.Module | None]:
    """Norms and projections of a decoder layer, None where it has no such part."""
    found: list[nn.Module | None] = [layer._modules.get(name) for name in _NORMS]
    for block, names in (("self_attn", _PROJECTIONS), ("mlp", _FEED_FORWARD)):
        parts = layer._modules.get(block)
        found += [None if parts is None else parts._modules.get(name) for name in names]
    return found


def _places(layer: nn.Module) -> list[tuple[dict[str, nn.Module | None], str]]:
    """Where norms, projections and the two blocks that hold these are registered."""
    places: list[tuple[dict[str, nn.Module | None], str]] = [(layer._modules, name) for name in _NORMS]
    for block, names in (("self_attn", _PROJECTIONS), ("mlp", _FEED_FORWARD)):
        places.append((layer._modules, block))
        parts = layer._modules.get(block)
        places += [] if parts is None else [(parts._modules, name) for name in names]
    return places


def _bind(modules: list[nn.Module | None], layer: nn.Module) -> _Bound | None:
    parts = [module for module in modules if module is not None]
    weights = [_plain_weight(part) for part in parts]
    if len(parts) != len(modules) or any(weight is None for weight in weights):
        return None
    gains, matrices = cast("list[Tensor]", weights[:2]), cast("list[Tensor | PackedWeight]", weights[2:])
    dtype = gains[0].dtype
    dense = [weight for weight in matrices if isinstance(weight, Tensor)]
    on_cpu = all(weight.device.type == "cpu" for weight in (*gains, *matrices))
    alike = all(weight.dtype == dtype and weight.stride(-1) == 1 for weight in (*gains, *dense))
    together = all(len({_kind(weight) for weight in group}) == 1 for group in (matrices[:3], matrices[4:6]))
    if not (on_cpu and alike and together and dtype in native.DTYPES):
        return None
    q, k, v, o, gate, up, down = (w.matrix if isinstance(w, PackedWeight) else dense_matrix(w) for w in matrices)
    head_dim = cast(int, layer.get_submodule("self_attn").head_dim)
    eps = cast(float, parts[0].eps), cast(float, parts[1].eps)
    return _Bound(
        modules=modules,
        gains=(gains[0], gains[1]),
        eps=eps,
        attention=(q, k, v),
        feed_forward=(o, gate, up, down),
        dtype=dtype,
        head_dim=head_dim,
        layer=Layer(gains[0].data_ptr(), gains[1].data_ptr(), *eps, q, k, v, o, gate, up, down, head_dim),
    )


def _plain_weight(module: nn.Module) -> Tensor | PackedWeight | None:
    """The weight of a module that is nothing but that weight."""
    hooked = module._forward_hooks or module._forward_pre_hooks
    if hooked or module._modules or not set(module._parameters) <= {"weight", "bias"}:
        return None
    if module._parameters.get("bias") is not None:
        return None
    if isinstance(module, QuantizedLinear):
        return module.weight if module.bias is None else None
    weight = module._parameters.get("weight")
    return None if weight is None else weight.detach()


def _kind(weight: Tensor | PackedWeight) -> tuple[int, int]:
    return (0, 0) if isinstance(weight, Tensor) else (weight.bits, weight.rotation)
