"""Decoder layers as compiled blocks: all of a model in one call over a paged cache, or each in three steps.

`fuse` puts fused layers where plain ones stood, with the same children under the same names, and a fused row of layers
where a plain one stood. A layer calls the compiled blocks (norm to q, k, v; attention; the rest) when its parts are
plain matrices of any kind, on the CPU without gradients; in every other case (an adapter in place of a projection,
say) it runs as it was written. When all layers are of that kind, and keys and values lie in pools, they run as one
kernel. The bits are the same every way.
"""

from __future__ import annotations

import ctypes
import operator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from llamakit.kernels import native
from llamakit.kernels.attention import Pool
from llamakit.kernels.cpu.library import Layer, Matrix, Pools, dense_matrix
from llamakit.kernels.grouped import GroupedWeight
from llamakit.kernels.int8_pool import Int8Pool
from llamakit.kernels.packed import PackedWeight
from llamakit.kernels.paged import PagedAttend
from llamakit.quant.grouped import GroupedLinear
from llamakit.quant.linear import QuantizedLinear

Weight = Tensor | PackedWeight | GroupedWeight

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
        bound = self.bind()
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

    def bind(self) -> _Bound | None:
        """What the compiled blocks need of this layer as it is now; None where they cannot run it."""
        # Asked for every layer of every token: looking at the places is all there is time for.
        if not self._seen or [where.get(name) for where, name in self._places] != self._seen:
            self._places = _places(self)
            self._seen = [where.get(name) for where, name in self._places]
            self._bound = _bind(_modules(self), self._plain)
        return self._bound


class _Run(NamedTuple):
    """All layers of a model and their pools, as one call wants them."""

    bounds: list[_Bound]
    layers: ctypes.Array[ctypes._Pointer[Layer]]
    pools: ctypes.Array[Pools]
    pool_dtype: torch.dtype


class FusedLayers(nn.ModuleList):
    """Stands where the layers of a model stood."""

    def forward(self, x_NE: Tensor, rope: tuple[Tensor, Tensor], attend) -> Tensor:
        library = native.library()
        if (
            library is not None
            and isinstance(attend, PagedAttend)
            and not torch.is_grad_enabled()
            and not native.is_traced(x_NE)
        ):
            run = self._run(attend)
            if run is not None and x_NE.dtype == run.bounds[0].dtype:
                step = attend.step(rope)
                return library.run_layers(x_NE, run.layers, run.pools, run.pool_dtype, step, native.num_threads())
        for index, layer in enumerate(self):
            x_NE = layer(index, x_NE, rope, attend)
        return x_NE

    def _run(self, attend: PagedAttend) -> _Run | None:
        bounds: list[_Bound] = []
        for layer in self:
            if not isinstance(layer, FusedLayer) or layer._forward_hooks or layer._forward_pre_hooks:
                return None
            if (bound := layer.bind()) is None:
                return None
            bounds.append(bound)
        found = attend.memo.get(self)
        if isinstance(found, _Run) and all(map(operator.is_, found.bounds, bounds)):
            return found
        run = _prepare(bounds, attend)
        if run is not None:
            attend.memo[self] = run
        return run


def _prepare(bounds: list[_Bound], attend: PagedAttend) -> _Run | None:
    """None for layers or pools that the kernel does not take."""
    pools = [_pools(bound, *pair) for bound, *pair in zip(bounds, attend.keys, attend.values, strict=True)]
    first = attend.keys[0]
    dtype = torch.int8 if isinstance(first, Int8Pool) else first.dtype
    alike = all(type(pool) is type(first) and _shape(pool) == _shape(first) for pool in (*attend.keys, *attend.values))
    if None in pools or not alike or len({bound.dtype for bound in bounds}) != 1 or attend.slots_N.dtype != torch.int64:
        return None
    layers = (ctypes.POINTER(Layer) * len(bounds))(*(ctypes.pointer(bound.layer) for bound in bounds))
    return _Run(bounds, layers, (Pools * len(pools))(*cast("list[Pools]", pools)), dtype)


def _pools(bound: _Bound, keys: Pool, values: Pool) -> Pools | None:
    """Where a layer's keys and values lie, unless the kernel does not read them there."""
    tensors: list[Tensor] = []
    for pool in (keys, values):
        tensors += [pool.codes, pool.scales] if isinstance(pool, Int8Pool) else [pool]
    heads = bound.layer.k.columns // bound.head_dim, bound.head_dim
    if _shape(keys)[2:] != heads or not all(tensor.is_contiguous() for tensor in tensors):
        return None
    if isinstance(keys, Int8Pool) and isinstance(values, Int8Pool):
        k, k_scales, v, v_scales = (tensor.data_ptr() for tensor in tensors)
        return Pools(k, v, k_scales, v_scales)
    if len(tensors) == 2 and native.takes(*tensors):
        return Pools(tensors[0].data_ptr(), tensors[1].data_ptr(), None, None)
    return None


def _shape(pool: Pool) -> tuple[int, ...]:
    return tuple((pool.codes if isinstance(pool, Int8Pool) else pool).shape)


def fuse(model: nn.Module) -> nn.Module:
    """Replace the decoder layers of `model`, and what holds them, in place by fused ones, and return the model."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if not isinstance(child, FusedLayer) and None not in _modules(child):
                module._modules[name] = FusedLayer(child)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ModuleList) and len(child) and all(isinstance(each, FusedLayer) for each in child):
                module._modules[name] = FusedLayers(child)
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
    gains, matrices = cast("list[Tensor]", weights[:2]), cast("list[Weight]", weights[2:])
    dtype = gains[0].dtype
    dense = [weight for weight in matrices if isinstance(weight, Tensor)]
    on_cpu = all(weight.device.type == "cpu" for weight in (*gains, *matrices))
    alike = all(weight.dtype == dtype and weight.stride(-1) == 1 for weight in (*gains, *dense))
    together = all(len({_kind(weight) for weight in group}) == 1 for group in (matrices[:3], matrices[4:6]))
    if not (on_cpu and alike and together and dtype in native.DTYPES):
        return None
    q, k, v, o, gate, up, down = (dense_matrix(w) if isinstance(w, Tensor) else w.matrix for w in matrices)
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


def _plain_weight(module: nn.Module) -> Weight | None:
    """The weight of a module that is nothing but that weight."""
    hooked = module._forward_hooks or module._forward_pre_hooks
    if hooked or module._modules or not set(module._parameters) <= {"weight", "bias"}:
        return None
    if module._parameters.get("bias") is not None:
        return None
    if isinstance(module, QuantizedLinear):
        return module.weight if module.bias is None else None
    if isinstance(module, GroupedLinear):
        return module.weight
    weight = module._parameters.get("weight")
    return None if weight is None else weight.detach()


def _kind(weight: Weight) -> tuple[str, int, int]:
    """Weights of one kind read the same activations."""
    if isinstance(weight, Tensor):
        return "dense", 0, 0
    if isinstance(weight, GroupedWeight):
        return "grouped", 0, weight.rotation
    return "packed", weight.bits, weight.rotation
