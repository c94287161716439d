"""What a response is given and what becomes of it, through OpenAI's client: files, moderation, compaction, padding."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest
from tests.scripted import Scripted, stack_with_tools
from tests.serving import echo_stack, served

from llamakit.core.messages import ImagePart
from llamakit.providers.specs import Api
from llamakit.stack.build import Stack
from llamakit.stack.distribution import Distribution, ProviderEntry, ShieldEntry
from llamakit.stack.fetching import FetchConfig
from llamakit.stack.providers import build_providers
from llamakit.stack.shields import fixed_shields

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
HTML = b"<html><body><h1>Llamas</h1><p>Their wool is soft.</p></body></html>"


@contextlib.contextmanager
def client_of(stack) -> Iterator[openai.OpenAI]:
    with served(stack) as server, openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
        yield client


class Pages(BaseHTTPRequestHandler):
    """A page, a picture, a way round, and nothing else."""

    def do_GET(self):
        found = {"/wool.html": ("text/html", HTML), "/dot": ("image/png", PIXEL)}.get(self.path)
        self.send_response(302 if self.path == "/round" else 404 if found is None else 200)
        if self.path == "/round":
            self.send_header("location", "http://127.0.0.2:1/secret")
        kind, body = found or ("text/plain", b"")
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


@contextlib.contextmanager
def pages() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def said(*parts) -> list[dict]:
    return [{"role": "user", "content": [*parts, {"type": "input_text", "text": "What is it?"}]}]


def image_of(message) -> ImagePart:
    return next(part for part in message.content if isinstance(part, ImagePart))


def test_images_and_files_by_id_by_address_and_as_they_come():
    model = Scripted("ok", "ok", "ok")
    with pages() as url:
        fetch = FetchConfig(hosts=(url.split("/")[2],), private=("127.0.0.1",))
        stack = Stack(inference=model, default_models=("echo",), distribution=Distribution(fetch=fetch))
        with client_of(stack) as client:
            image = client.files.create(file=("dot.png", PIXEL), purpose="vision")
            page = client.files.create(file=("wool.html", HTML), purpose="user_data")
            parts = [
                {"type": "input_image", "file_id": image.id, "detail": "high"},
                {"type": "input_image", "image_url": f"{url}/dot", "detail": "auto"},
                {"type": "input_file", "file_id": page.id, "detail": "low"},
                {"type": "input_file", "file_url": f"{url}/wool.html"},
                {"type": "input_file", "file_data": base64.b64encode(HTML).decode(), "filename": "w.html"},
            ]
            parts[0]["prompt_cache_breakpoint"] = {"mode": "explicit"}
            first = client.responses.create(model="echo", input=said(*parts))
            client.files.delete(image.id)
            client.responses.create(model="echo", input="And?", previous_response_id=first.id)
            items = client.responses.input_items.list(first.id).data
            for path, words in (("/nothing", "answered 404"), ("/round", r"not an allowed host.*fetch\.hosts")):
                with pytest.raises(openai.BadRequestError, match=words) as refused:
                    part = {"type": "input_file", "file_url": url + path}
                    client.responses.create(model="echo", input=said(part))
                assert refused.value.param == "input[0].content[0].file_url"
    for request in model.asked:
        message = request.messages[0]
        images = [part.data for part in message.content if isinstance(part, ImagePart)]
        assert images == [PIXEL, PIXEL] and message.text.count("Their wool is soft.") == 3
    assert items[0].content[0].file_id == image.id and items[0].content[3].file_url.endswith("/wool.html")
    assert "wool is soft" not in str(items)


@pytest.mark.parametrize("kind", ["input_file", "input_image"])
def test_nothing_is_fetched_unless_the_distribution_says_so(kind):
    with client_of(echo_stack()) as client:
        part = {"type": kind, ("file_url" if kind == "input_file" else "image_url"): "https://example.org/x"}
        with pytest.raises(openai.BadRequestError, match="fetches no addresses"):
            client.responses.create(model="echo", input=said(part))


def test_an_image_that_is_none_is_refused():
    with client_of(echo_stack()) as client:
        file = client.files.create(file=("dot.png", b"no image"), purpose="vision")
        for id in (file.id, "file-" + "0" * 48):
            with pytest.raises(openai.BadRequestError) as refused:
                client.responses.create(model="echo", input=said({"type": "input_image", "file_id": id}))
            assert refused.value.param == "input[0].content[0].file_id"


def test_a_prompts_variables_may_be_files_and_images():
    model = Scripted("ok")
    with client_of(Stack(inference=model, default_models=("echo",))) as client:
        stored = client.post(
            "/prompts", body={"prompt": "Read {{page}} twice: {{page}}. See {{dot}}!", "variables": ["page", "dot"]},
            cast_to=object,
        )  # fmt: skip
        page = client.files.create(file=("wool.html", HTML), purpose="user_data")
        shown = {"type": "input_image", "image_url": "data:image/png;base64," + base64.b64encode(PIXEL).decode()}
        variables = {"page": {"type": "input_file", "file_id": page.id}, "dot": shown}
        client.responses.create(model="echo", input="hi", prompt={"id": stored["prompt_id"], "variables": variables})
    message = model.asked[0].messages[0]
    assert message.text.count("Their wool is soft.") == 2 and message.text.startswith("Read [File: wool.html]")
    assert image_of(message).data == PIXEL and message.text.endswith("See !")


def moderated(model) -> Stack:
    words = {"words": ["bomb"], "user_message": "No."}
    shields = (ShieldEntry(shield_id="words", provider_id="word-list", params=words),)
    rows = {Api.safety: (ProviderEntry(provider_id="word-list", provider_type="inline::word-list"),)}
    distribution = Distribution(providers=rows, shields=shields)
    providers, _ = build_providers(distribution, {})
    return Stack(
        inference=model,
        default_models=("echo",),
        distribution=distribution,
        providers=providers,
        fixed_shields=fixed_shields(distribution, providers.of(Api.safety)),
    )


@pytest.mark.parametrize("way", ["whole", "streamed", "background"])
def test_moderation_tells_of_input_and_output(way):
    model = Scripted("A bomb it is.", "Fine.")
    with client_of(moderated(model)) as client:
        asked = {"model": "echo", "moderation": {"model": "omni-moderation-latest"}}
        first = _answered(client, way, **asked, input="Hello!")
        second = _answered(client, way, **asked, input="A bomb?")
    assert first.status == "completed" and first.output_text == "A bomb it is."
    assert (first.moderation.input.flagged, first.moderation.output.flagged) == (False, True)
    assert first.moderation.output.model == "words" and first.moderation.output.type == "moderation_result"
    assert (second.moderation.input.flagged, second.moderation.output.flagged) == (True, False)


def _answered(client, way, **asked):
    if way == "whole":
        return client.responses.create(**asked)
    return list(client.responses.create(**asked, stream=True, background=way == "background"))[-1].response


@pytest.mark.parametrize("stream", [False, True])
def test_moderation_can_block(stream):
    model = Scripted("A bomb it is.")
    policy = {"input": {"mode": "block"}, "output": {"mode": "block"}}
    with client_of(moderated(model)) as client:
        asked = {"model": "echo", "moderation": {"model": "words", "policy": policy}}
        way = "streamed" if stream else "whole"
        unasked = _answered(client, way, **asked, input="A bomb?")
        assert not model.asked
        withheld = _answered(client, way, **asked, input="Hello!")
    for answer in (unasked, withheld):
        assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "content_filter")
        assert "bomb" not in answer.output_text
    assert unasked.moderation.input.flagged and unasked.moderation.output.code == "not_moderated"
    assert not withheld.moderation.input.flagged and withheld.moderation.output.flagged


def test_a_long_conversation_is_made_short_on_the_way():
    model = Scripted("One.", "SUMMARY", "Two.", "Three.")
    with client_of(Stack(inference=model, default_models=("echo",))) as client:
        short = {"model": "echo", "context_management": [{"type": "compaction", "compact_threshold": 100}]}
        first = client.responses.create(**short, instructions="Be kind.", input="x" * 200)
        events = list(
            client.responses.create(**short, instructions="Be kind.", input="2?", previous_response_id=first.id,
                                    stream=True)
        )  # fmt: skip
        second = events[-1].response
        final = client.responses.create(model="echo", input="3?", previous_response_id=second.id)
    assert [item.type for item in second.output] == ["compaction", "message"]
    assert [event.type for event in events if "compact" in event.type] == ["response.compaction.compacting"]
    assert second.usage.output_tokens == 4  # of the summary, too
    roles = [[message.role for message in request.messages] for request in model.asked]
    assert roles[2] == ["system", "system", "user"] and model.asked[2].messages[0].text == "Be kind."
    assert "SUMMARY" in model.asked[2].messages[1].text and model.asked[2].messages[2].text == "2?"
    assert roles[3] == ["system", "user", "assistant", "user"] and "SUMMARY" in model.asked[3].messages[0].text
    assert final.output_text == "Three."


def test_a_trigger_makes_the_conversation_short_and_nothing_else():
    model = Scripted("One.", "SUMMARY", "Two.")
    with client_of(Stack(inference=model, default_models=("echo",))) as client:
        first = client.responses.create(model="echo", input="1?")
        second = client.responses.create(
            model="echo", input=[{"type": "compaction_trigger"}], previous_response_id=first.id
        )
        client.responses.create(model="echo", input="2?", previous_response_id=second.id)
        with pytest.raises(openai.BadRequestError, match="nothing was said"):
            client.responses.create(model="echo", input=[{"type": "compaction_trigger"}])
        with pytest.raises(openai.BadRequestError, match="last"):
            late = [{"type": "compaction_trigger"}, {"role": "user", "content": "hi"}]
            client.responses.create(model="echo", input=late)
    assert second.status == "completed" and [item.type for item in second.output] == ["compaction"]
    assert [message.role for message in model.asked[2].messages] == ["system", "user"]
    assert "SUMMARY" in model.asked[2].messages[0].text


def test_a_configuration_update_holds_until_a_request_says_otherwise():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wanted = {"type": "json_schema", "name": "n", "schema": schema}
    update = {"type": "configuration_update", "text": {"format": wanted}, "reasoning": {"effort": "low"}}
    with client_of(echo_stack()) as client:
        conversation = client.conversations.create(items=[update]).id
        first = client.responses.create(model="echo", input="n?", conversation=conversation)
        plain = client.responses.create(
            model="echo", input="n?", conversation=conversation, text={"format": {"type": "text"}}
        )
        items = client.conversations.items.list(conversation, order="asc").data
    assert isinstance(json.loads(first.output_text)["n"], int) and first.text.format.type == "json_schema"
    assert first.reasoning.effort == "low" and plain.output_text == "n?"
    assert items[0].type == "configuration_update" and items[0].text.format.name == "n"


@pytest.mark.parametrize("background", [False, True])
def test_pieces_are_padded_where_that_is_wished(background):
    with client_of(echo_stack()) as client:
        asked = {"model": "echo", "input": "hello", "stream": True, "background": background}
        padded = list(client.responses.create(**asked, stream_options={"include_obfuscation": True}))
        plain = list(client.responses.create(**asked))
        if background:
            id = padded[-1].response.id
            again = client.responses.retrieve(id, stream=True, include_obfuscation=True)
            assert all(event.obfuscation for event in again if event.type.endswith(".delta"))
    pieces = [event for event in padded if event.type.endswith(".delta")]
    assert pieces and {(len(one.delta) + len(one.obfuscation)) % 16 for one in pieces} == {0}
    assert not any("obfuscation" in event.to_dict() for event in plain)


def test_the_comparison_of_prompts_says_what_it_can():
    with client_of(echo_stack()) as client:
        first = client.responses.create(model="echo", input="hi")
        told = [
            client.responses.create(model="echo", input="hi", prompt_cache_options={"comparison_response_id": id})
            for id in (first.id, "resp_" + "0" * 48)
        ]
    kinds = [one.prompt_cache_diagnostics.type for one in told]
    assert kinds == ["unavailable", "comparison_response_not_found"]
    assert told[0].prompt_cache_options.comparison_response_id == first.id


def test_items_made_elsewhere_are_kept_listed_and_read():
    foreign = [
        {"type": "program", "call_id": "p", "code": "1 + 1", "fingerprint": "f"},
        {"type": "program_output", "call_id": "p", "result": "2", "status": "completed"},
        {"type": "image_generation_call", "status": "completed", "result": "aGk=", "revised_prompt": "a llama"},
        {"type": "tool_search_call", "arguments": {"paths": ["crm"]}, "execution": "server", "status": "completed"},
        {"type": "tool_search_output", "tools": [{"type": "function", "name": "f"}], "execution": "server"},
        {"type": "message", "role": "user", "content": [{"type": "computer_screenshot", "file_id": "f"}]},
    ]
    model = Scripted("ok")
    with client_of(stack_with_tools(model)) as client:
        conversation = client.conversations.create(items=foreign).id
        kinds = [one.type for one in client.conversations.items.list(conversation, order="asc")]
        client.responses.create(model="echo", input="hi", conversation=conversation)
    assert kinds == [item["type"] for item in foreign]
    texts = [message.text for message in model.asked[0].messages]
    assert "2" in texts and "These tools can be called now: f" in texts and "not shown here" in texts[-2]
    assert [spec.name for spec in model.asked[0].tools] == ["f"]
