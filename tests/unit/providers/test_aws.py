"""Signatures as AWS's documentation gives them, and as its own library makes them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.faultserver import faulty

from llamakit.api.inference import ChatRequest, RequestContext
from llamakit.core.config import Secret
from llamakit.core.errors import ConfigError
from llamakit.core.messages import user
from llamakit.providers.remote.inference.openai_compat import OpenAICompatInference
from llamakit.providers.remote.inference.settings import read_settings
from llamakit.providers.shared.aws import Signer

MOMENT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
PAIR = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "eu-west-1"}


def signer(**more):
    return Signer(key_id="AKIDEXAMPLE", secret=Secret(SECRET), clock=lambda: MOMENT, **more)


def test_the_published_example():
    """The request that the documentation of Signature Version 4 signs step by step."""
    url = "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08"
    kind = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    made = signer(region="us-east-1", service="iam")("GET", url, b"", kind)
    assert made["x-amz-date"] == "20150830T123600Z"
    assert made["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, "
        "SignedHeaders=content-type;host;x-amz-date, "
        "Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    )
    assert SECRET not in repr(signer(region="r", service="s"))


@pytest.mark.peer
@pytest.mark.parametrize("path", ["/openai/v1/chat/completions", "/a b/é%2F", "/x?b=2&a=1"])
def test_botocore_signs_the_same(path, monkeypatch):
    auth = pytest.importorskip("botocore.auth")
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    monkeypatch.setattr(auth, "get_current_datetime", lambda: MOMENT.replace(tzinfo=None), raising=False)
    url, body = f"https://bedrock-runtime.eu-west-1.amazonaws.com{path}", b'{"a": 1}'
    request = AWSRequest("POST", url, headers={"content-type": "application/json"}, data=body)
    auth.SigV4Auth(Credentials("AKIDEXAMPLE", SECRET, "token"), "bedrock", "eu-west-1").add_auth(request)
    moment = datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    own = Signer(
        region="eu-west-1",
        service="bedrock",
        key_id="AKIDEXAMPLE",
        secret=Secret(SECRET),
        session=Secret("token"),
        clock=lambda: moment,
    )
    made = own("POST", url, body, {"content-type": "application/json"})
    assert made["authorization"] == request.headers["Authorization"]
    assert made["x-amz-security-token"] == "token"


def test_a_key_comes_before_a_signature():
    settings = read_settings({"vendor": "bedrock"}, {**PAIR, "AWS_BEARER_TOKEN_BEDROCK": "sk-12345678"})
    assert settings.remote.sign is None and settings.remote.headers["authorization"] == "Bearer sk-12345678"
    settings = read_settings({"vendor": "bedrock"}, PAIR)
    assert settings.remote.sign is not None and not settings.remote.headers and SECRET not in repr(settings)
    with pytest.raises(ConfigError, match="AWS_BEARER_TOKEN_BEDROCK"):
        read_settings({"vendor": "bedrock"}, {**PAIR, "AWS_SECRET_ACCESS_KEY": ""})


async def test_requests_carry_the_signature_of_what_was_sent():
    async def script(asked, answer):
        await answer.events({"choices": [{"delta": {"content": "ok"}, "finish_reason": "stop"}]})

    async with faulty(script) as server:
        provider = OpenAICompatInference(read_settings({"vendor": "bedrock", "base_url": server.url}, PAIR))
        asked = ChatRequest(model="é", messages=(user("hi"),), context=RequestContext(id="r"))
        async for _ in provider.chat(asked):
            pass
        await provider.aclose()
        (sent,) = server.asked
    moment = datetime.strptime(sent.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    again = Signer(
        region="eu-west-1", service="bedrock", key_id="AKIDEXAMPLE", secret=Secret(SECRET), clock=lambda: moment
    )
    url = f"http://{sent.headers['host']}{sent.path}"
    made = again("POST", url, sent.body, {"content-type": sent.headers["content-type"]})
    assert sent.headers["authorization"] == made["authorization"]
