"""Images in Responses, through OpenAI's client, drawn by a service of the test that speaks OpenAI's images."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest
from tests.scripted import Scripted, stack_with_tools
from tests.serving import served

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
USAGE = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12,
         "input_tokens_details": {"image_tokens": 0, "text_tokens": 5}}  # fmt: skip
DRAWN = {"data": [{"b64_json": PIXEL, "revised_prompt": "a woolly llama"}], "size": "1024x1024", "usage": USAGE}
DRAW = [("image_generation", {"prompt": "a llama"})]


@contextlib.contextmanager
def painter(answer: Any = DRAWN, status: int = 200) -> Iterator[tuple[str, list[Any]]]:
    """Where a service draws, and what it was asked."""
    asked: list[Any] = []

    class Painter(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append((self.path, self.headers.get("authorization"), body))
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, format, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Painter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def client_of(model, url: str) -> Iterator[openai.OpenAI]:
    stack = stack_with_tools(model, {"remote::openai-images": {"base_url": url, "api_key": "hunter22"}})
    with served(stack) as server, openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
        yield client


def test_an_image_is_drawn_shown_and_told_of():
    model = Scripted(DRAW, "There it is.", "Yes.")
    with painter() as (url, asked), client_of(model, url) as client:
        tool = {"type": "image_generation", "size": "1024x1024", "quality": "low", "model": "painter-1"}
        events = list(client.responses.create(model="echo", input="Draw.", tools=[tool], stream=True))
        final = events[-1].response
        client.responses.create(model="echo", input="Good?", previous_response_id=final.id)
        conversation = client.conversations.create(items=[final.output[0].model_dump(exclude_none=True)])
        (kept,) = client.conversations.items.list(conversation.id)
    call, message = final.output
    assert (call.type, call.status, call.result, call.revised_prompt) == (
        "image_generation_call", "completed", PIXEL, "a woolly llama")  # fmt: skip
    assert message.content[0].text == "There it is." and kept.result == PIXEL
    assert asked == [
        ("/v1/images/generations", "Bearer hunter22",
         {"prompt": "a llama", "size": "1024x1024", "quality": "low", "model": "painter-1", "n": 1})
    ]  # fmt: skip
    stages = ("in_progress", "generating", "completed")
    assert [event.type for event in events if "image_generation_call" in event.type] == [
        f"response.image_generation_call.{stage}" for stage in stages
    ]
    assert (final.tool_usage.image_gen.total_tokens, final.tool_usage.web_search.num_requests) == (12, 0)
    assert final.tool_usage.image_gen.input_tokens_details.text_tokens == 5
    # The model was told that there is an image, then and later, and never saw it.
    assert "not shown" in model.asked[1].messages[-1].text
    assert [message.text for message in model.asked[2].messages[:3]] == [
        message.text for message in model.asked[1].messages
    ]
    assert model.asked[2].messages[1].tool_calls[0].arguments == '{"prompt": "a llama"}'


@pytest.mark.parametrize(
    ("answer", "status"),
    [({"error": {"message": "no paint"}}, 400), ({"data": [{"url": "https://x/y.png"}]}, 200), ([], 200),
     ({"data": [{"b64_json": "bm8="}]}, 200)],
)  # fmt: skip
def test_a_service_that_draws_nothing_is_told_to_the_model(answer, status):
    model = Scripted(DRAW, "Sorry.")
    with painter(answer, status) as (url, _), client_of(model, url) as client:
        made = client.responses.create(model="echo", input="Draw.", tools=[{"type": "image_generation"}])
    assert made.output[0].status == "failed" and made.output[0].result is None and made.output_text == "Sorry."
    assert model.asked[1].messages[-1].text.startswith("Error: ") and "hunter22" not in made.to_json()


@pytest.mark.parametrize(
    "more",
    [{"action": "edit"}, {"input_image_mask": {"file_id": "f"}}, {"frame_count": 3}, {"output_format": "svg"}],
    ids=str,
)
def test_what_the_service_is_not_asked_for_is_refused(more):
    with painter() as (url, asked), client_of(Scripted(), url) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(model="echo", input="Draw.", tools=[{"type": "image_generation", **more}])
        assert refused.value.code == "unsupported_tool" and not asked
