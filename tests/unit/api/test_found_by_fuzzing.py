"""What generated requests found: each once was an answer that no client could have expected."""

from __future__ import annotations

import pytest
from tests.serving import chat_body, echo_app, in_process

from llamakit.api.llama_stack_agents import LlamaStackAgentConfig
from llamakit.api.openai_conversations import WireConversationItemsRequest
from llamakit.api.wire import read
from llamakit.core.errors import InvalidRequest


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (LlamaStackAgentConfig, {"model": "m", "instructions": "x", "toolgroups": [""]}),
        (
            WireConversationItemsRequest,
            {
                "items": [
                    {"type": "mcp_list_tools", "server_label": "x", "tools": [{"name": "a", "input_schema": None}]}
                ]
            },
        ),
    ],
    ids=["a tool group without a name was a server error", "a null that is required was kept and not shown"],
)
def test_refused(kind, body):
    with pytest.raises(InvalidRequest):
        read(kind, body)


async def test_a_field_without_a_name_can_be_named_in_a_header():
    async with in_process(echo_app()) as client:
        response = await client.post("/v1/chat/completions", json=chat_body(**{"": 1, "x": 1}))
        assert response.status_code == 200
        assert set(response.headers["x-llamakit-ignored"].split(", ")) == {"(empty)", "x"}
