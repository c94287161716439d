"""Every operation, read from the router: what it says to nothing, to nonsense, and to names of nothing."""

from __future__ import annotations

import pytest
from tests.serving import echo_app, in_process

from llamakit.server.app import operations_of
from llamakit.server.dialects import dialect_of, error_kind

OPERATIONS = [operation for operation in operations_of(echo_app()) if operation.alias_of is None]
IDS = [operation.name for operation in OPERATIONS]
UNKNOWN = "no-such-thing"
BODIES = (
    None,
    b"",
    b"{",
    b"[]",
    b"null",
    b"{}",
    b'{"model": 7, "messages": 7, "input": 7, "items": 7, "metadata": 7}',
    b'{"unheard_of": 1}',
)


@pytest.mark.parametrize("operation", OPERATIONS, ids=IDS)
async def test_nothing_and_nonsense_are_answered(operation):
    path = operation.path
    while "{" in path:
        path = f"{path[: path.index('{')]}{UNKNOWN}{path[path.index('}') + 1 :]}"
    async with in_process(echo_app()) as client:
        for body in BODIES if operation.method in ("POST", "PUT", "PATCH") else BODIES[:1]:
            headers = {"content-type": "application/json"} if body is not None else {}
            response = await client.request(operation.method, path, content=body, headers=headers)
            status = response.status_code
            assert status < 500, (body, response.text)
            if status >= 400 and operation.method != "HEAD":
                kind = error_kind(dialect_of(path, response.headers))
                assert not kind.model_validate(response.json()).model_extra, response.text
            if status == 200 and operation.answer is not None and "text/event-stream" not in str(response.headers):
                assert not operation.answer.model_validate(response.json()).model_extra
            if "{" in operation.path and operation.body is None and operation.method != "HEAD":
                # 400 where this server keeps nothing of the kind: no names of models, no traces.
                wanted = 400 if operation.name in ("unregisterModel", "getTrace", "getSpan") else 404
                assert status == wanted, (operation.path, status, response.text)
        for query in ("limit=x", "limit=0", "limit=9999999", "order=up", "after=nobody", "stream=maybe"):
            if operation.method == "GET" and operation.query:
                response = await client.get(f"{path}?{query}")
                assert response.status_code < 500, (query, response.text)
