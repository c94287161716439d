"""Writes of every kind to a server, what each must say afterwards, and whether it does. The kinds of kill tests."""

from __future__ import annotations

import json
from dataclasses import dataclass

ENDED = ("completed", "failed", "cancelled", "incomplete", "expired")


@dataclass(frozen=True)
class Acknowledged:
    """Something the server said it has."""

    kind: str
    id: str
    says: str
    store: str = ""


def a_chat(server, text):
    body = {"model": "echo", "messages": [{"role": "user", "content": text}], "store": True}
    return Acknowledged("chat", server.post("chat/completions", body)["id"], text)


def a_file(server, text, purpose="user_data"):
    made = server.post("files", files={"file": ("a.txt", text.encode())}, data={"purpose": purpose})
    return Acknowledged("file", made["id"], text)


def a_conversation(server, text):
    made = server.post("conversations", {"items": [{"role": "user", "content": text}]})
    return Acknowledged("conversation", made["id"], text)


def a_response(server, text):
    made = server.post("responses", {"model": "echo", "input": text, "background": True})
    return Acknowledged("response", made["id"], text)


def a_batch(server, text):
    rows = [
        {
            "custom_id": f"{n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "echo", "messages": [{"role": "user", "content": f"{text} {n}"}]},
        }
        for n in range(3)
    ]
    file = a_file(server, "".join(json.dumps(row) + "\n" for row in rows), "batch")
    body = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return Acknowledged("batch", server.post("batches", body)["id"], text)


def a_stored_file(server, text):
    file = a_file(server, text, "assistants")
    store = server.post("vector_stores", {"name": text[:20]})["id"]
    server.post(f"vector_stores/{store}/files", {"file_id": file.id})
    return Acknowledged("stored file", file.id, text, store)


WRITES = (a_chat, a_file, a_conversation, a_response, a_batch, a_stored_file)


def says(server, one):
    """What an object says now; None while it is not at its end."""
    match one.kind:
        case "chat":
            return server.get(f"chat/completions/{one.id}").json()["choices"][0]["message"]["content"]
        case "file":
            return server.get(f"files/{one.id}/content").text
        case "conversation":
            return server.get(f"conversations/{one.id}/items").json()["data"][0]["content"][0]["text"]
        case "response":
            body = server.get(f"responses/{one.id}").json()
            if body["status"] not in ENDED:
                return None
            return body["output"][0]["content"][0]["text"] if body["status"] == "completed" else str(body["error"])
        case "batch":
            body = server.get(f"batches/{one.id}").json()
            if body["status"] not in ENDED:
                return None
            lines = server.get(f"files/{body['output_file_id']}/content").text.splitlines()
            rows = [json.loads(line) for line in lines]
            said = [row["response"]["body"]["choices"][0]["message"]["content"] for row in rows]
            assert said == [f"{one.says} {n}" for n in range(3)], "a line is missing, or there twice"
            return one.says
        case _:
            body = server.get(f"vector_stores/{one.store}/files/{one.id}").json()
            if body["status"] not in ENDED:
                return None
            assert body["status"] == "completed", body
            return one.says


def unsettled(server, objects):
    """Those that are not at their end yet; raises where one says something else than it was told."""
    return [one for one in objects if (said := says(server, one)) is None or not _same(one, said)]


def _same(one, said):
    assert said == one.says, (one, said)
    return True
