"""Images drawn by a service that speaks OpenAI's images: a prompt in, one picture out.

Only drawing is asked for: pictures are neither edited nor sent piece by piece.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from llamakit.agents.tools import check_arguments
from llamakit.api.hosted_tools import HostedKind, HostedResult, ServerParts
from llamakit.api.images import to_image
from llamakit.core.errors import InvalidRequest, LlamakitError, ToolError
from llamakit.core.messages import ToolSpec
from llamakit.providers.remote.inference.settings import read_key
from llamakit.providers.shared.remote import Remote, RemoteConfig
from llamakit.providers.shared.tool_settings import argument, check_config, check_settings, config_number

BASE_URL = "https://api.openai.com/v1"
MAX_PROMPT_CHARS = 32_000
DRAWN = "An image was made; it is not shown here."
_CONFIG = ("api_key", "api_key_env", "base_url", "model", "timeout_s")
_PASSED = ("model", "size", "quality", "background", "output_format", "output_compression", "moderation")
"""Settings that the service takes as they are."""
_TOLD = ("size", "quality", "background", "output_format")
"""What an answer of the service says of its picture."""
_NO_EFFECT = ("type", "action", "partial_images", "input_fidelity", "complexity")
_REFUSED = ("input_image_mask", "frame_count", "frame_duration_ms", "svg")
SPEC = ToolSpec(
    name="image_generation",
    description="Draw an image for the user. You are not shown it; say what you had drawn.",
    parameters={
        "type": "object",
        "properties": {"prompt": {"type": "string", "minLength": 1, "description": "What the image shows"}},
        "required": ["prompt"],
        "additionalProperties": False,
    },
    strict=True,
)


def build(config: Mapping[str, Any], needs: Mapping[Any, Any]) -> Images:
    """The provider; raises `ConfigError` for an unknown setting, and for OpenAI itself without a key."""
    check_config("remote::openai-images", config, _CONFIG)
    base_url = str(config.get("base_url") or BASE_URL)
    key, _ = read_key("openai-images", "OPENAI_API_KEY", config, os.environ, needs_key=base_url == BASE_URL)
    remote = RemoteConfig(
        service="the image service",
        base_url=base_url,
        headers={} if key is None else {"authorization": f"Bearer {key.reveal()}"},
        total_s=config_number(config, "timeout_s", 180.0, 3600.0),
        # A picture costs money: one that may have been drawn is not asked for again.
        retries=0,
    )
    return Images(Remote(remote), config.get("model"))


class Images:
    """The provider."""

    kind: HostedKind = "image_generation"
    group = "builtin::image_generation"

    def __init__(self, remote: Remote, model: str | None) -> None:
        self._remote = remote
        self._model = model

    def bind(self, parts: ServerParts) -> None:
        """It needs nothing of its server."""

    async def start(self) -> None:
        """Nothing to try: a picture costs money."""

    async def open(self, owner: str, settings: Mapping[str, Any]) -> _Drawing:
        """The tool as a request wants it."""
        check_settings(SPEC.name, settings, (*_PASSED, *_NO_EFFECT, *_REFUSED))
        for name in _REFUSED:
            if name in settings:
                raise _refused(name, "the service is asked for single new images only; leave it out")
        if settings.get("action") == "edit":
            raise _refused("action", "images are not edited here; use generate or auto")
        if settings.get("output_format") == "svg":
            raise _refused("output_format", "drawings are made of pixels here; use png, jpeg, webp or gif")
        wanted = {name: settings[name] for name in _PASSED if name in settings}
        return _Drawing(self._remote, ({} if self._model is None else {"model": self._model}) | wanted)

    async def aclose(self) -> None:
        """Close the connections to the service."""
        await self._remote.aclose()


class _Drawing:
    """The tool of one request."""

    specs = (SPEC,)

    def __init__(self, remote: Remote, wanted: Mapping[str, Any]) -> None:
        self._remote = remote
        self._wanted = wanted

    def needs_approval(self, name: str) -> bool:
        """Never: whoever configures the service pays for it."""
        return False

    async def call(self, name: str, arguments: str) -> HostedResult:
        """Have one image drawn."""
        prompt = argument(check_arguments(SPEC, arguments), SPEC, "prompt", most=MAX_PROMPT_CHARS)
        try:
            answer = await self._remote.post("/images/generations", {**self._wanted, "prompt": prompt, "n": 1})
        except LlamakitError as fault:
            raise ToolError(f"the image could not be made: {fault}") from fault
        drawn, revised = _picture(answer)
        said = {name: answer[name] for name in _TOLD if isinstance(answer.get(name), str)}
        usage = answer.get("usage")
        return HostedResult(
            output=DRAWN,
            fields={
                "result": drawn,
                "revised_prompt": revised or prompt,
                "action": "generate",
                "usage": usage if isinstance(usage, dict) else {},
                **said,
            },
        )


def _picture(answer: Any) -> tuple[str, str | None]:
    """The image in base64, and the prompt as the service changed it; raises `ToolError` for anything else."""
    match answer:
        case {"data": [{"b64_json": str(data), **more}, *_]}:
            revised = more.get("revised_prompt")
            try:
                to_image(data, "the image")
            except InvalidRequest as fault:
                raise ToolError(f"the image service gave no image: {fault}") from fault
            return data, revised if isinstance(revised, str) else None
    raise ToolError("the image service gave no image in base64; name a model that does (b64_json)")


def _refused(name: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"image_generation {name}: {what}", param=f"tools.{name}", code="unsupported_tool")
