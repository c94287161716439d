"""Embeddings, models, token ids, management, keep_alive, ids and limits."""

from __future__ import annotations

import base64
import math
import struct
from array import array
from datetime import UTC, datetime

import pytest

from llamakit.api import openai_embeddings as embeddings
from llamakit.api import tokenize
from llamakit.api.ids import is_plain_id, new_id
from llamakit.api.inference import (
    Embeddings,
    LoadedModel,
    ModelInfo,
    RequestContext,
    TokenizerInfo,
    Tokens,
    ToolChoice,
    read_keep_alive,
)
from llamakit.api.limits import Limits
from llamakit.api.management import WireLoadedModel, from_loaded
from llamakit.api.openai_models import WireModels, from_models
from llamakit.api.wire import read
from llamakit.core.errors import ConfigError, InvalidRequest


def test_embedding_bodies():
    made = Embeddings(vectors=(array("f", [1.0, -0.5]),), prompt_tokens=4)
    wire, _ = read(embeddings.WireEmbeddingRequest, {"model": "m", "input": "x"})
    body = embeddings.to_body(wire, made)
    embeddings.WireEmbeddings.model_validate(body)
    assert body["data"][0]["embedding"] == [1.0, -0.5] and body["usage"]["total_tokens"] == 4
    wire, _ = read(embeddings.WireEmbeddingRequest, {"model": "m", "input": "x", "encoding_format": "base64"})
    text = embeddings.to_body(wire, made)["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(text)) == (1.0, -0.5)


@pytest.mark.parametrize(
    ("given", "inputs"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), ([1, 2], ((1, 2),)), ([[1], [2, 3]], ((1,), (2, 3)))],
)
def test_embedding_inputs(given, inputs):
    wire, _ = read(embeddings.WireEmbeddingRequest, {"model": "m", "input": given, "keep_alive": 0})
    request = embeddings.to_request(wire, request_id="r", salt="s")
    assert request.inputs == inputs
    assert request.context == RequestContext(id="r", salt="s", keep_alive=read_keep_alive(0))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
    ],
    ids=str,
)
def test_bad_embedding_requests(fields, param):
    with pytest.raises(InvalidRequest) as caught:
        wire, _ = read(embeddings.WireEmbeddingRequest, {"model": "m", "input": "x", **fields})
        embeddings.to_request(wire, request_id="r")
    assert caught.value.param == param


def test_model_list():
    body = from_models([ModelInfo(name="a/b:c", created=5, context_length=9, details={"family": "llama"})])
    WireModels.model_validate(body)
    assert body["data"][0]["id"] == "a/b:c" and body["data"][0]["max_model_len"] == 9


def test_tokenize_translation():
    wire, _ = read(tokenize.WireTokenizeRequest, {"prompt": "x", "add_special_tokens": False})
    request = tokenize.to_request(wire, "m")
    assert (request.prompt, request.add_special_tokens, request.parse_special) == ("x", False, False)
    body = tokenize.from_tokens(wire, "m", Tokens(ids=(1, 2), texts=("a", "b")), 8)
    assert body == {"model": "m", "count": 2, "max_model_len": 8, "tokens": [1, 2], "token_strs": None}
    wire, _ = read(tokenize.WireTokenizeRequest, {"messages": [{"role": "user", "content": "x"}]})
    assert tokenize.to_request(wire, "m").add_generation_prompt


@pytest.mark.parametrize(
    "fields",
    [{}, {"prompt": "x", "messages": []}, {"messages": []}, {"prompt": "x", "continue_final_message": True}],
    ids=str,
)
def test_bad_tokenize_requests(fields):
    with pytest.raises(InvalidRequest):
        tokenize.to_request(read(tokenize.WireTokenizeRequest, fields)[0], "m")


def test_tokenizer_facts():
    info = TokenizerInfo(model="m", kind="k", vocab_size=9, context_length=8, bos=None, eos=((3, "<e>"), (4, "<f>")))
    body = tokenize.from_info(info)
    tokenize.WireTokenizerInfo.model_validate(body)
    assert (body["bos_token"], body["eos_token"], body["eos_token_id"]) == (None, "<e>", 3)


def test_loaded_models_say_until_when():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    model = LoadedModel(name="m", memory_bytes=1, context_length=2, device="cpu", expires_in_s=90.0)
    body = from_loaded(model, now)
    WireLoadedModel.model_validate(body)
    assert body["expires_at"] == "2026-01-01T00:01:30+00:00"
    stays = from_loaded(LoadedModel(name="m", memory_bytes=1, context_length=2, device="cpu"), now)
    assert stays["expires_at"] is None and stays["expires_in_s"] is None


@pytest.mark.parametrize(("value", "seconds"), [(0, 0), (90, 90), ("5m", 300), ("1.5h", 5400), (-1, -1), ("-1", -1)])
def test_keep_alive(value, seconds):
    assert read_keep_alive(value) == seconds


@pytest.mark.parametrize("value", ["", "soon", "5 parsecs", 1e12, math.inf, math.nan, 10**400, "9" * 400])
def test_bad_keep_alive(value):
    with pytest.raises(InvalidRequest):
        read_keep_alive(value)


def test_ids_are_random_and_given_ones_are_checked():
    assert new_id("x") != new_id("x") and len(new_id("x")) == 2 + 48
    assert is_plain_id(new_id("req")) and is_plain_id("my.id_1")
    assert not any(is_plain_id(text) for text in ("", "a b", "a\n", "é", "x" * 129, "a,b", "a\r\nb"))


def test_limits_and_choices_that_cannot_work_are_refused():
    with pytest.raises(ConfigError):
        Limits(body_bytes=0)
    with pytest.raises(ConfigError):
        ToolChoice(mode="named")
    with pytest.raises(ConfigError):
        ToolChoice(name="f")
