"""Starting a server that is described: its models are there, the log is set up, and the person is told where it is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from llamakit.cli.options import ensure_here, require_torch
from llamakit.cli.terminal import say

if TYPE_CHECKING:
    from llamakit.stack.distribution import Distribution


def start(distribution: Distribution, *, offline: bool, verbose: bool = False) -> None:
    """Serve until asked to stop; models of this machine are pulled first, where the person agrees."""
    from llamakit.server.logs import configure_logging
    from llamakit.server.serve import serve

    have_models(distribution, offline=offline or distribution.server.offline)
    json_logs = distribution.telemetry.json_logs
    configure_logging(as_json=json_logs, level=logging.DEBUG if verbose else logging.INFO)
    serve(distribution, on_ready=lambda address: None if json_logs else _welcome(address, distribution))


def have_models(distribution: Distribution, *, offline: bool) -> None:
    """Have what the local provider needs: torch, and the files of its models."""
    from llamakit.providers.specs import Api
    from llamakit.stack.distribution import LOCAL_INFERENCE

    local = {row.provider_id for row in distribution.of(Api.inference) if row.provider_type == LOCAL_INFERENCE}
    if not local:
        return
    require_torch()
    for model in distribution.models:
        if distribution.provider_of(model) in local:
            ensure_here(model.provider_model_id or model.model_id, offline=offline)


def _welcome(address: str, distribution: Distribution) -> None:
    if not address.startswith("http"):
        return
    say(f"\n  {address}/v1 speaks the OpenAI API. Try:", "strong")
    model = distribution.models[0].model_id if distribution.models else "MODEL"
    key = ' -H "Authorization: Bearer $LLAMA_API_KEY"' if distribution.server.wants_key else ""
    say(
        f"  curl {address}/v1/chat/completions -H 'Content-Type: application/json'{key} \\\n"
        f'    -d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}\'\n'
        "  Ctrl-C stops.\n"
    )
