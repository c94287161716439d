"""Talks to a running `llama serve`, for the commands that manage it."""

from __future__ import annotations

from typing import Any

from llamakit.core.config import Settings, config_path, load
from llamakit.core.errors import ConfigError, InvalidRequest, LlamakitError, UnknownModel

TIMEOUT_S = 10.0


class NotRunning(LlamakitError, ConnectionError):
    """No server answers at the address."""


def ask(method: str, route: str, *, body: dict[str, Any] | None = None, host: str | None, port: int | None) -> Any:
    """The JSON answer of the server at the settings' address (or `host`, `port`); raises on anything else."""
    import httpx2

    settings = load(Settings, file=config_path(), flags={"host": host, "port": port}).value
    name = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    address = f"http://{name}:{settings.port}"
    headers = {"Authorization": f"Bearer {settings.api_key.reveal()}"} if settings.api_key else {}
    try:
        # A server on this machine is asked directly, whatever proxy the environment names.
        with httpx2.Client(timeout=TIMEOUT_S, trust_env=False) as client:
            response = client.request(method, address + route, json=body, headers=headers)
        answer = response.json()
    except httpx2.TransportError as error:
        raise NotRunning(
            f"no server answers at {address}. Start one with `llama serve`, or say where it is with --host and --port"
        ) from error
    except ValueError as error:
        raise NotRunning(f"what answers at {address} is not llamakit (no JSON); choose another --port") from error
    if response.status_code == 200:
        return answer
    told = answer.get("error", {}) if isinstance(answer, dict) else {}
    message = told.get("message") if isinstance(told, dict) else None
    match response.status_code:
        case 401 | 403:
            raise ConfigError(
                f"{address} wants a key: set LLAMA_API_KEY to one of the server's ({message or 'refused'})"
            )
        case 404 if message:
            raise UnknownModel(str(message))
        case 400:
            raise InvalidRequest(str(message or "refused"))
        case status:
            raise NotRunning(f"what answers at {address} gave {status} to {route}: {message or 'is it llamakit?'}")
