"""Run config -> a stack: the providers it names, behind one door per API."""

from __future__ import annotations

from dataclasses import dataclass

from llamakit.api.inference import Inference
from llamakit.core.errors import InvalidRequest
from llamakit.providers.specs import Api
from llamakit.stack.library import Library
from llamakit.stack.resolve import build_provider, resolve_spec
from llamakit.stack.router import InferenceRouter
from llamakit.stack.run_config import ServeConfig

LOCAL = "inline::local"
"""The provider whose models are files of this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """What a server serves."""

    inference: Inference
    default_models: tuple[str, ...] = ()
    """Models of the run config, the default first."""
    library: Library | None = None
    """The models on this machine, where that is what is served."""

    async def model_or_default(self, name: str | None) -> str:
        """`name`, or the model meant when none is named; raises `InvalidRequest` where that is not one."""
        if name is not None:
            return name
        if self.default_models:
            return (await self.inference.model(self.default_models[0])).name
        names = [model.name for model in await self.inference.models()]
        if len(names) != 1:
            raise InvalidRequest(f"model is required, one of: {', '.join(names) or 'none is there'}", param="model")
        return names[0]

    async def aclose(self) -> None:
        """End all work."""
        await self.inference.aclose()


def build_stack(config: ServeConfig) -> Stack:
    """Build the provider that the config names; raises `ConfigError`. Loads no model."""
    settings = {"models": config.models, "keep_alive": config.keep_alive, **config.provider_config}
    provider = build_provider(resolve_spec(Api.inference, config.provider), settings, {})
    library = Library() if config.provider == LOCAL else None
    return Stack(inference=InferenceRouter({}, provider), default_models=config.models, library=library)
