"""serve, ps and stop: against a server with the echo provider."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.serving import served

import llamakit
from llamakit.cli import starting
from llamakit.core.config import Secret
from llamakit.providers.specs import Api
from llamakit.stack.distribution import Distribution

SRC = Path(llamakit.__file__).parents[1]


def test_ps_and_stop(llama) -> None:
    with served() as server:
        port = ("--port", str(server.port))
        assert [model["model"] for model in json.loads(llama("ps", *port, "--json").stdout)] == ["echo", "meta/echo:1b"]
        assert llama("ps", *port).stdout.splitlines()[1].split()[0] == "echo"
        for model in ("echo", "meta/echo:1b"):
            assert f"{model} leaves memory" in llama("stop", model, *port).stderr
        assert "no model in memory" in llama("ps", *port).stderr
        assert "was not in memory" in llama("stop", "echo", *port).stderr
        unknown = llama("stop", "nothing", *port)
        assert unknown.exit_code == 1 and "nothing" in unknown.stderr


def test_keys_are_sent_and_asked_for(llama, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(api_keys=(Secret("sk-0123456789"),)) as server:
        port = ("--port", str(server.port))
        refused = llama("ps", *port)
        assert refused.exit_code == 2 and "set LLAMA_API_KEY" in refused.stderr
        monkeypatch.setenv("LLAMA_API_KEY", "sk-0123456789")
        assert llama("ps", *port).exit_code == 0


def test_without_a_server_the_way_to_one_is_told(llama) -> None:
    result = llama("ps", "--port", "9")
    assert result.exit_code == 1 and "Start one with `llama serve`" in result.stderr


def test_something_else_on_the_port_is_named(llama) -> None:
    from tests.fakehub import FakeHub

    with FakeHub() as other:
        result = llama("ps", "--port", other.url.rpartition(":")[2])
        assert (result.exit_code == 1 and "is not llamakit" in result.stderr) or "is it llamakit?" in result.stderr


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Distribution]:
    """What `serve` was given instead of serving."""
    given: list[Distribution] = []
    monkeypatch.setattr("llamakit.server.serve.serve", lambda distribution, on_ready: given.append(distribution))
    monkeypatch.setattr("llamakit.server.logs.configure_logging", lambda **wishes: None)
    monkeypatch.setattr(starting, "ensure_here", lambda name, offline: None)
    return given


def test_flags_become_the_run_config(llama, given: list[Distribution], world: Path) -> None:
    (world / "keys").write_text("# mine\nsk-0123456789\n\nsk-abcdefghij\n")
    result = llama(
        "serve", "cria", "llama3.2:1b", "--host", "0.0.0.0", "--port", "9000", "--api-key-file", "keys",
        "--keep-alive", "1h", "--strict", "--no-preload", "--context", "4096", "--dtype", "bfloat16",
        "--max-loaded", "2", "--no-speculation",
        "--cors-origin", "http://localhost:3000", "--allowed-host", "box", "--drain", "5s",
        "--json-logs", "--draft", "cria",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (distribution,) = given
    made, (provider,) = distribution.server, distribution.of(Api.inference)
    assert [model.model_id for model in distribution.models] == ["cria", "llama3.2:1b"]
    assert made.host == "0.0.0.0" and made.port == 9000
    assert [key.reveal() for key in made.api_keys] == ["sk-0123456789", "sk-abcdefghij"]
    assert made.strict and not made.preload and made.drain_s == 5 and distribution.telemetry.json_logs
    assert provider.config == {
        "keep_alive": 3600, "context": 4096, "dtype": "bfloat16", "max_loaded": 2, "speculation": False,
        "draft": "cria",
    }  # fmt: skip
    assert made.cors_origins == ("http://localhost:3000",) and made.allowed_hosts == ("box",)


def test_settings_are_the_defaults(
    llama, given: list[Distribution], world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world / "home").mkdir()
    (world / "home" / "config.toml").write_text('model = "mine"\nport = 8000\n')
    monkeypatch.setenv("LLAMA_PORT", "8001")
    assert llama("serve").exit_code == 0
    (distribution,) = given
    assert [model.model_id for model in distribution.models] == ["mine"] and distribution.server.port == 8001
    assert distribution.of(Api.inference)[0].config == {"keep_alive": "5m", "max_loaded": 3}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--host", "0.0.0.0"], "can be reached from other machines"),
        (["--api-key-file", "nowhere"], "no file nowhere"),
        (["--api-key-file", "empty"], "holds no key"),
        (["--keep-alive", "soon"], "a duration such as 5m"),
        (["--port", "99999"], "port must be in"),
        (["--tls-cert", "x"], "tls_cert and tls_key go together"),
    ],
)
def test_what_cannot_be_served_is_told(
    llama, given: list[Distribution], world: Path, arguments: list[str], told: str
) -> None:
    (world / "empty").write_text("# nothing\n")
    result = llama("serve", *arguments)
    assert result.exit_code == 2 and told in result.stderr and given == []


def test_a_provider_of_another_name_needs_no_model_here(llama, given: list[Distribution]) -> None:
    assert llama("serve", "--provider", "inline::echo").exit_code == 0
    (provider,) = given[0].of(Api.inference)
    assert provider.provider_type == "inline::echo" and provider.config == {}
    assert given[0].models == ()


def test_a_real_server_starts_answers_and_stops(world: Path) -> None:
    environ = {"PYTHONPATH": str(SRC), "PATH": "/usr/bin:/bin", "LLAMA_HOME": str(world / "home"), "HOME": str(world)}
    process = subprocess.Popen(
        [sys.executable, "-m", "llamakit", "serve", "--provider", "inline::echo", "--port", "0"],
        env=environ, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        port = ""
        for line in process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/v1 speaks", line):
                port = found[1]
                break
        result = subprocess.run(
            [sys.executable, "-m", "llamakit", "ps", "--json", "--port", port],
            env=environ, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert [model["model"] for model in json.loads(result.stdout)] == ["echo"]
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
        assert process.returncode == 0 and "Traceback" not in told
    finally:
        process.kill()
        process.communicate()


def test_where_objects_are_kept(llama, given: list[Distribution], monkeypatch: pytest.MonkeyPatch) -> None:
    assert llama("serve", "--provider", "inline::echo", "--storage", ":memory:").exit_code == 0
    monkeypatch.setenv("LLAMA_STORAGE", "postgresql://u:hunter2@h/d")
    assert llama("serve", "--provider", "inline::echo").exit_code == 0
    assert [made.storage.database for made in given] == [":memory:", "postgresql://u:hunter2@h/d"]
    refused = llama("serve", "--provider", "inline::echo", "--storage", "mysql://u:hunter2@h/d")
    assert refused.exit_code != 0 and "hunter2" not in refused.stderr
