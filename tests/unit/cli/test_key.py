"""`llama key`: on the server's own database, also while it runs."""

from __future__ import annotations

import json
import time

import httpx2
import pytest
from tests.serving import echo_stack, served

from llamakit.stack.build import Stack
from llamakit.stack.keys import is_key
from llamakit.stack.schema import STEPS
from llamakit.stack.storage import Storage


def test_a_key_is_shown_once_listed_and_ended(llama) -> None:
    made = llama("key", "create", "laptop", "--expires", "90d", "--requests-per-minute", "60")
    key = made.stdout.strip()
    assert is_key(key) and "not shown again" in made.stderr
    listed = llama("key", "list")
    assert key not in listed.stdout and key[:10] in listed.stdout and "requests_per_minute=60" in listed.stdout
    (fact,) = json.loads(llama("key", "list", "--json").stdout)
    assert fact["name"] == "laptop" and fact["state"] == "active" and fact["expires"].endswith("Z")
    assert "lets nobody in" in llama("key", "revoke", fact["id"]).stderr
    assert json.loads(llama("key", "list", "--json").stdout) == []
    assert [one["state"] for one in json.loads(llama("key", "list", "--all", "--json").stdout)] == ["revoked"]
    assert "Make one with" in llama("key", "list").stderr


def test_json_holds_the_key_and_what_it_may(llama) -> None:
    made = json.loads(llama("key", "create", "ci", "--scope", "inference", "--owner", "team", "--json").stdout)
    assert is_key(made["key"]) and made["scopes"] == ["inference"] and made["owner"] == "team"
    assert json.loads(llama("key", "revoke", "ci", "--json").stdout)["state"] == "revoked"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("create", "x", "--scope", "inferense"), 2, "nearest: 'inference'"),
        (("create", "x", "--expires", "soon"), 2, "a duration looks like"),
        (("create", "x", "--storage", ":memory:"), 2, "belongs to its server alone"),
        (("create", "x", "--storage", "sqlite:a", "--distro", "local"), 2, "give one of them"),
        (("create", ""), 2, "1 to 64 characters"),
        (("revoke", "nobody"), 1, "no API key 'nobody'"),
    ],
)
def test_mistakes_are_told(llama, arguments, code, told) -> None:
    result = llama("key", *arguments)
    assert result.exit_code == code and told in result.stderr


def test_the_database_of_a_distribution(llama, tmp_path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(f"version: 1\nstorage:\n  database: sqlite:{tmp_path / 'shop.db'}\n")
    assert llama("key", "create", "ci", "--distro", str(file)).exit_code == 0
    assert llama("key", "revoke", "ci").exit_code == 1
    assert llama("key", "revoke", "ci", "--storage", f"sqlite:{tmp_path / 'shop.db'}").exit_code == 0


def test_a_running_server_takes_and_refuses_at_once(llama, tmp_path) -> None:
    target = f"sqlite:{tmp_path / 'server.db'}"
    echo = echo_stack()
    stack = Stack(inference=echo.inference, default_models=echo.default_models, storage=Storage(target, STEPS))
    with served(stack, require_key=True) as server, httpx2.Client(base_url=server.base_url) as client:

        def status(key: str) -> int:
            return client.get("models", headers={"authorization": f"Bearer {key}"}).status_code

        assert status("sk-anything") == 401
        key = llama("key", "create", "laptop", "--storage", target).stdout.strip()
        assert status(key) == 200
        llama("key", "revoke", "laptop", "--storage", target)
        deadline = time.monotonic() + 4
        while status(key) == 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert status(key) == 401
