"""Wolfram|Alpha as a tool: a question in words, an answer in words.

Asks the service's interface for language models, which takes the key in a header, so that no URL ever holds it.
Source: Wolfram|Alpha LLM API reference.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from llamakit.agents.tools import check_arguments
from llamakit.api.hosted_tools import HostedKind, HostedResult, ServerParts
from llamakit.core.errors import LlamakitError, ToolError
from llamakit.core.messages import ToolSpec
from llamakit.outbound.client import OutboundClient, OutboundLimits
from llamakit.outbound.policy import OutboundPolicy
from llamakit.providers.remote.inference.settings import read_key
from llamakit.providers.shared.foreign_text import plain
from llamakit.providers.shared.tool_settings import argument, check_config, check_settings, config_number

BASE_URL = "https://www.wolframalpha.com"
KEY_ENV = "WOLFRAM_ALPHA_API_KEY"
MAX_QUERY_CHARS = 400
MAX_ANSWER_CHARS = 6800
_LINE_CHARS = 2000
SPEC = ToolSpec(
    name="wolfram_alpha",
    description="Compute or look up facts of mathematics, science, units, dates and places, in one short question.",
    parameters={
        "type": "object",
        "properties": {"query": {"type": "string", "minLength": 1, "description": "The question, in English"}},
        "required": ["query"],
    },
)


def build(config: Mapping[str, Any], needs: Mapping[Any, Any]) -> WolframAlpha:
    """The provider; raises `ConfigError` for an unknown setting and for a missing key."""
    check_config("remote::wolfram-alpha", config, ("api_key", "api_key_env", "base_url", "timeout_s"))
    key, _ = read_key("wolfram-alpha", KEY_ENV, config, os.environ, needs_key=True)
    assert key is not None, "a missing key is refused"
    base_url = str(config.get("base_url") or BASE_URL).rstrip("/")
    return WolframAlpha(base_url, key.reveal(), config_number(config, "timeout_s", 30.0, 600.0))


class WolframAlpha:
    """The provider, and the tool, which has no settings."""

    kind: HostedKind | None = None
    group = "builtin::wolfram_alpha"
    specs = (SPEC,)

    def __init__(self, base_url: str, key: str, timeout_s: float) -> None:
        self._base_url = base_url
        self._headers = {"authorization": f"Bearer {key}", "accept": "text/plain"}
        limits = OutboundLimits(max_bytes=1 << 20, total_s=timeout_s)
        self._client = OutboundClient(OutboundPolicy.to(base_url), limits=limits)

    def bind(self, parts: ServerParts) -> None:
        """It needs nothing of its server."""

    async def start(self) -> None:
        """Nothing to try: each question counts."""

    async def open(self, owner: str, settings: Mapping[str, Any]) -> WolframAlpha:
        """The tool itself; it takes no settings."""
        check_settings(SPEC.name, settings, ())
        return self

    def needs_approval(self, name: str) -> bool:
        """Never: it reads only."""
        return False

    async def call(self, name: str, arguments: str) -> HostedResult:
        """Ask once."""
        text = argument(check_arguments(SPEC, arguments), SPEC, "query", most=MAX_QUERY_CHARS)
        asked = urlencode({"input": text, "maxchars": MAX_ANSWER_CHARS})
        try:
            answer = await self._client.request(
                "GET", f"{self._base_url}/api/v1/llm-api?{asked}", headers=self._headers
            )
        except LlamakitError as fault:
            raise ToolError(f"Wolfram|Alpha failed: {fault}") from fault
        said = _lines(answer.body.decode("utf-8", "replace"))
        if answer.status in (401, 403):
            raise ToolError(f"Wolfram|Alpha refused our key ({answer.status}); check {KEY_ENV}")
        if answer.status == 501:
            # Its word for a question that it does not understand; the body has suggestions.
            raise ToolError(f"Wolfram|Alpha does not understand this question; ask otherwise. {said[:500]}".strip())
        if not answer.ok:
            raise ToolError(f"Wolfram|Alpha answered {answer.status}: {said[:300]}")
        return HostedResult(output=said or "Wolfram|Alpha has no answer.")

    async def aclose(self) -> None:
        """Close the connections to the service."""
        await self._client.aclose()


def _lines(text: str) -> str:
    """The answer, line by line without what cannot be seen."""
    return "\n".join(line for raw in text[: 2 * MAX_ANSWER_CHARS].splitlines() if (line := plain(raw, _LINE_CHARS)))
