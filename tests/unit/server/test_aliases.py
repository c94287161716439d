"""Operations at their second paths: where classic Llama Stack had OpenAI's, and where newer ones moved their own."""

from __future__ import annotations

from tests.serving import chat_body, echo_app, events_of, in_process

from llamakit.server.app import operations_of
from llamakit.server.dialects import CLASSIC_OPENAI


def test_every_operation_of_openais_api_and_no_other():
    operations = operations_of(echo_app())
    aliases = {(o.method, o.path): o for o in operations if o.path.startswith(CLASSIC_OPENAI)}
    own = {o.name: o for o in operations if o.alias_of is None}
    assert len(aliases) > 30
    for (method, path), alias in aliases.items():
        original = own[alias.alias_of]
        assert method == original.method and path == original.path.replace("/v1/", "/v1/openai/v1/", 1)
        assert alias.endpoint is original.endpoint and alias.body is original.body
        assert alias.is_public == original.is_public and alias.changes_machine == original.changes_machine
    paths = {path for _, path in aliases}
    assert {"/v1/openai/v1/responses/{response_id}", "/v1/openai/v1/models"} <= paths
    assert not [path for path in paths if "/inference/" in path or "/messages" in path.replace("}/messages", "")]


async def test_what_newer_servers_moved_is_at_both_paths():
    async with in_process(echo_app()) as client:
        for own, other in [
            ("/v1/providers", "/v1alpha/admin/providers"),
            ("/v1/inspect/routes", "/v1alpha/admin/inspect/routes"),
            ("/v1/version", "/v1alpha/admin/version"),
            ("/v1/health", "/v1alpha/admin/health"),
            ("/v1/tools", "/v1/admin/tools"),
            ("/v1/agents", "/v1alpha/agents"),
            ("/v1/datasets", "/v1beta/datasets"),
        ]:
            one, two = await client.get(own), await client.get(other)
            assert one.status_code == two.status_code == 200, other
            assert one.json().keys() == two.json().keys()


async def test_streams_end_without_a_mark_and_errors_have_a_detail():
    async with in_process(echo_app()) as client:
        own = await client.post("/v1/chat/completions", json=chat_body(stream=True))
        classic = await client.post("/v1/openai/v1/chat/completions", json=chat_body(stream=True))
        assert events_of(own.text)[-1] == "[DONE]"
        contents = [
            [event["choices"][0]["delta"] for event in events_of(one.text) if event != "[DONE]"]
            for one in (own, classic)
        ]
        assert contents[0] == contents[1] and "[DONE]" not in classic.text
        refused = await client.post("/v1/openai/v1/chat/completions", json=chat_body() | {"model": "nobody"})
        assert refused.status_code == 404 and refused.json()["detail"] == refused.json()["error"]["message"]
        assert (await client.get("/v1/openai/v1/nowhere")).json()["detail"].startswith("nothing is at this path")
        response = await client.post("/v1/openai/v1/responses", json={"model": "echo", "input": "x", "stream": True})
        assert "event: response.completed" in response.text and "[DONE]" not in response.text
