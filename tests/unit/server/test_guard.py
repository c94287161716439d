"""What a key lets do: scopes of every operation, limits, and the end of requests whose key ends."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import httpx2
import openai
import pytest
from tests.serving import chat_body, echo_app, echo_stack, in_process, served

from llamakit.core.config import Secret
from llamakit.core.errors import ConfigError
from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.server.app import build_app, operations_of
from llamakit.server.limits import duration
from llamakit.server.routing import GuardedRoute
from llamakit.server.scopes import BY_NAME, BY_TAG, scope_of
from llamakit.stack.access import ALL_SCOPES, DEFAULT_SCOPES, KeyLimits, Scope
from llamakit.stack.run_config import ServeConfig
from llamakit.stack.schema import STEPS
from llamakit.stack.storage import Storage

OPERATIONS = operations_of(echo_app())


def bearer(secret: Secret) -> dict[str, str]:
    return {"authorization": f"Bearer {secret.reveal()}"}


@asynccontextmanager
async def serving(inference=None, **settings):
    """A client and the stack behind it."""
    stack = echo_stack(inference)
    async with in_process(build_app(stack, ServeConfig(**settings))) as client:
        try:
            yield client, stack
        finally:
            await stack.aclose()


def test_every_operation_wants_a_scope_that_the_table_names():
    for operation in OPERATIONS:
        wanted = scope_of(operation)
        assert operation.is_public == (wanted is None), operation.name
        named = operation.is_public or operation.changes_machine or operation.name in BY_NAME or operation.tag in BY_TAG
        assert named, f"{operation.name}: give its tag {operation.tag!r} a row in server/scopes.py"
        if operation.changes_machine:
            assert wanted is Scope.models_manage


def test_the_table_names_nothing_that_is_not_there():
    assert set(BY_NAME) <= {operation.name for operation in OPERATIONS}
    assert set(BY_TAG) - {"admin"} <= {operation.tag for operation in OPERATIONS}


def test_nothing_is_reached_but_through_the_guard():
    routes = echo_app().router.routes
    assert routes and all(isinstance(route, GuardedRoute) for route in routes)


def test_aliases_want_what_their_operations_want():
    wanted = {operation.name: scope_of(operation) for operation in OPERATIONS}
    for operation in OPERATIONS:
        if operation.alias_of is not None:
            assert scope_of(operation) is wanted[operation.alias_of], operation.name


def test_using_the_server_and_running_it_are_apart():
    wanted = {operation.name: scope_of(operation) for operation in OPERATIONS}
    for name in ("createChatCompletion", "createResponse", "createMessage", "ollamaChat", "createEmbedding"):
        assert wanted.get(name, Scope.inference) is Scope.inference, name
    assert wanted["deleteResponse"] is Scope.objects_write and wanted["getResponse"] is Scope.objects_read
    assert wanted["loadModel"] is wanted["unloadModel"] is Scope.models_manage
    assert wanted["metrics"] is Scope.metrics
    assert not {Scope.admin, Scope.models_manage, Scope.metrics} & DEFAULT_SCOPES


async def test_every_operation_is_refused_without_its_scope():
    async with serving(require_key=True) as (client, stack):
        for missing in Scope:
            if missing is Scope.admin:
                continue
            key, _ = await stack.keys.create(f"all but {missing}", scopes=ALL_SCOPES - {missing, Scope.admin})
            for operation in OPERATIONS:
                if scope_of(operation) is not missing:
                    continue
                path = operation.path.replace("{", "").replace("}", "").replace(":path", "")
                answer = await client.request(operation.method, path, headers=bearer(key))
                assert answer.status_code == 403, operation.name
                assert f'scope="{missing}"' in answer.headers["www-authenticate"]
                assert operation.method == "HEAD" or missing.value in answer.text, operation.name


async def test_admin_holds_every_scope():
    async with serving(require_key=True) as (client, stack):
        key, _ = await stack.keys.create("root", scopes=frozenset({Scope.admin}))
        for path in ("/metrics", "/v1/models", "/v1/llamakit/ps", "/v1/prompts"):
            assert (await client.get(path, headers=bearer(key))).status_code == 200


async def test_keys_come_and_go_while_the_server_runs():
    async with serving(require_key=True) as (client, stack):
        assert (await client.get("/v1/models")).status_code == 401
        key, made = await stack.keys.create("laptop")
        assert (await client.get("/v1/models", headers=bearer(key))).status_code == 200
        assert (await client.get("/v1/models", headers={"x-api-key": key.reveal()})).status_code == 200
        await stack.keys.revoke(made.id)
        refused = await client.get("/v1/models", headers=bearer(key))
        assert refused.status_code == 401 and "revoked" in refused.json()["error"]["message"]


async def test_where_no_key_is_wanted_only_real_keys_are_held_to_it():
    async with serving() as (client, stack):
        assert (await client.get("/v1/models", headers=bearer(Secret("sk-anything")))).status_code == 200
        key, made = await stack.keys.create("narrow", scopes=frozenset({Scope.models_read}))
        assert (await client.get("/v1/models", headers=bearer(key))).status_code == 200
        assert (await client.post("/v1/chat/completions", json=chat_body(), headers=bearer(key))).status_code == 403
        await stack.keys.revoke(made.id)
        assert (await client.get("/v1/models", headers=bearer(key))).status_code == 401


async def test_objects_belong_to_the_owner_of_a_key():
    async with serving(require_key=True) as (client, stack):
        first, made = await stack.keys.create("old")
        second, _ = await stack.keys.create("new", owner=made.owner)
        other, _ = await stack.keys.create("other")
        prompt = (await client.post("/v1/prompts", json={"prompt": "x"}, headers=bearer(first))).json()["prompt_id"]
        found = [
            (await client.get(f"/v1/prompts/{prompt}", headers=bearer(key))).status_code for key in (second, other)
        ]
        assert found == [200, 404]


async def test_owners_share_no_cached_prefix():
    provider = EchoInference()
    async with serving(provider, require_key=True) as (client, stack):
        first, made = await stack.keys.create("a")
        second, _ = await stack.keys.create("b", owner=made.owner)
        other, _ = await stack.keys.create("c")
        for key in (first, second, other):
            await client.post("/v1/chat/completions", json=chat_body(), headers=bearer(key))
    one, same, another = (context.salt for context in provider.contexts)
    assert one == same != another and len(one) == 64


async def test_requests_beyond_the_limit_are_told_when_to_come_again():
    async with serving(require_key=True) as (client, stack):
        key, _ = await stack.keys.create("ci", limits=KeyLimits(requests_per_minute=3, tokens_per_minute=1000))
        answers = [await client.post("/v1/chat/completions", json=chat_body(), headers=bearer(key)) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        told = [answer.headers["x-ratelimit-remaining-requests"] for answer in answers]
        assert told == ["2", "1", "0", "0"]
        assert answers[0].headers["x-ratelimit-limit-requests"] == "3"
        tokens = [int(answer.headers["x-ratelimit-remaining-tokens"]) for answer in answers[:2]]
        assert tokens == [1000, 1000 - answers[0].json()["usage"]["total_tokens"]]
        refused = answers[3]
        assert 0 < int(refused.headers["retry-after"]) <= 65
        assert refused.headers["x-ratelimit-reset-requests"].endswith("s")
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert "'ci'" in refused.json()["error"]["message"]
        other, _ = await stack.keys.create("other")
        free = await client.get("/v1/models", headers=bearer(other))
        assert free.status_code == 200 and not any(name.startswith("x-ratelimit") for name in free.headers)


async def test_anthropics_clients_read_headers_of_their_own():
    async with serving(require_key=True) as (client, stack):
        key, _ = await stack.keys.create("ci", limits=KeyLimits(requests_per_minute=1))
        body = {"model": "echo", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
        answers = [await client.post("/v1/messages", json=body, headers=bearer(key)) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]
        assert answers[0].headers["anthropic-ratelimit-requests-remaining"] == "0"
        assert answers[1].json()["error"]["type"] == "rate_limit_error"


async def test_used_up_tokens_keep_the_next_request_out():
    async with serving(require_key=True) as (client, stack):
        key, _ = await stack.keys.create("ci", limits=KeyLimits(tokens_per_minute=5))
        answers = [await client.post("/v1/chat/completions", json=chat_body(), headers=bearer(key)) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]
        assert "5 tokens a minute" in answers[1].json()["error"]["message"]


async def test_bodies_are_counted():
    async with serving(require_key=True) as (client, stack):
        key, _ = await stack.keys.create("ci", limits=KeyLimits(bytes_per_day=200))
        big = await client.post("/v1/chat/completions", json=chat_body("x" * 300), headers=bearer(key))
        small = [await client.post("/v1/chat/completions", json=chat_body(), headers=bearer(key)) for _ in range(6)]
        assert big.status_code == 429 and "200 bytes a day" in big.json()["error"]["message"]
        assert [answer.status_code for answer in small][-1] == 429 and small[0].status_code == 200


async def test_no_more_are_answered_at_once_than_allowed():
    async with serving(EchoInference(EchoConfig(models=("echo",), delay_s=0.02)), require_key=True) as (client, stack):
        key, _ = await stack.keys.create("ci", limits=KeyLimits(streams=2))

        async def ask():
            return await client.post("/v1/chat/completions", json=chat_body("hello"), headers=bearer(key))

        answers = await asyncio.gather(*(ask() for _ in range(5)))
        codes = sorted(answer.status_code for answer in answers)
        assert codes == [200, 200, 429, 429, 429]
        assert (await ask()).status_code == 200


async def test_limits_of_the_server_hold_for_keys_of_its_config():
    static = Secret("sk-of-the-config")
    async with serving(api_keys=(static,), limits=KeyLimits(requests_per_minute=1)) as (client, _):
        codes = [(await client.get("/v1/models", headers=bearer(static))).status_code for _ in range(2)]
        assert codes == [200, 429]


async def test_strangers_may_use_and_not_run_the_server():
    async with serving(host="0.0.0.0", allow_anonymous=True) as (client, _):
        assert (await client.post("/v1/chat/completions", json=chat_body())).status_code == 200
        refused = await client.post("/v1/llamakit/unload", json={"model": "echo"})
        assert refused.status_code == 403 and "open to other machines" in refused.json()["error"]["message"]


def test_an_open_address_may_take_keys_of_the_database():
    assert ServeConfig(host="0.0.0.0", require_key=True).wants_key
    with pytest.raises(ConfigError, match="llama key create"):
        ServeConfig(host="0.0.0.0")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.1204, "121ms"), (8.64, "8.64s"), (60, "1m0s"), (359.9, "6m0s"), (59.999, "1m0s")],
)
def test_durations_as_openai_spells_them(seconds, text):
    assert duration(seconds) == text


def slow_server(tmp_path, **settings):
    """A real server whose answers take long, on a database that others may open too."""
    stack = echo_stack(EchoInference(EchoConfig(models=("echo",), delay_s=0.02)))
    object.__setattr__(stack, "storage", Storage(f"sqlite:{tmp_path / 'server.db'}", STEPS))
    stack.__post_init__()
    return served(stack, **settings)


async def elsewhere(tmp_path, work):
    """Work on the database of a running server, as `llama key` does it."""
    from llamakit.stack.keys import KeyBook

    storage = Storage(f"sqlite:{tmp_path / 'server.db'}", STEPS)
    try:
        return await work(KeyBook(storage))
    finally:
        await storage.aclose()


def test_a_revocation_ends_the_answer_that_is_being_made(tmp_path):
    with slow_server(tmp_path, require_key=True) as server:
        key, made = asyncio.run(elsewhere(tmp_path, lambda book: book.create("laptop")))
        with openai.OpenAI(base_url=server.base_url, api_key=key.reveal(), max_retries=0) as client:
            messages = [{"role": "user", "content": "word " * 400}]
            stream = client.chat.completions.create(model="echo", messages=messages, stream=True)
            next(iter(stream))
            asyncio.run(elsewhere(tmp_path, lambda book: book.revoke(made.id)))
            revoked = time.monotonic()
            with pytest.raises(openai.APIError, match="revoked"):
                for _ in stream:
                    pass
            assert time.monotonic() - revoked < 4  # a second, and a busy machine
            with pytest.raises(openai.AuthenticationError):
                client.models.list()


def test_a_revocation_ends_a_request_that_is_not_streamed(tmp_path):
    with slow_server(tmp_path, require_key=True) as server:
        key, _ = asyncio.run(elsewhere(tmp_path, lambda book: book.create("short", expires_s=0.5)))
        with httpx2.Client(base_url=server.url) as client:
            begun = time.monotonic()
            body = chat_body("word " * 400)
            answer = client.post("/v1/chat/completions", json=body, headers=bearer(key), timeout=20)
            assert answer.status_code == 401 and time.monotonic() - begun < 6


def test_openais_client_reads_limits_and_waits(tmp_path):
    with slow_server(tmp_path, require_key=True) as server:
        limits = KeyLimits(requests_per_minute=1)
        key, _ = asyncio.run(elsewhere(tmp_path, lambda book: book.create("ci", limits=limits)))
        with openai.OpenAI(base_url=server.base_url, api_key=key.reveal(), max_retries=0) as client:
            client.models.list()
            with pytest.raises(openai.RateLimitError) as caught:
                client.models.list()
            assert int(caught.value.response.headers["retry-after"]) > 0


async def test_tokens_of_an_issuer_let_in():
    pytest.importorskip("jwt")
    from tests.issuer import Issuer

    from llamakit.stack.oidc_config import OidcConfig

    with Issuer() as issuer:
        issuer.publish()
        config = OidcConfig(issuer=issuer.url, audience=("llamakit",))
        async with serving(oidc=config, limits=KeyLimits(requests_per_minute=50)) as (client, stack):
            for token, status in (
                (None, 401),
                ("sk-anything", 401),
                (issuer.token(), 200),
                (issuer.token(aud="x"), 401),
                (issuer.token(scope="inference"), 403),
            ):
                headers = {} if token is None else bearer(Secret(token))
                assert (await client.get("/v1/prompts", headers=headers)).status_code == status
            key, _ = await stack.keys.create("beside")
            assert (await client.get("/v1/prompts", headers=bearer(key))).status_code == 200
            made = await client.post("/v1/prompts", json={"prompt": "x"}, headers=bearer(Secret(issuer.token())))
            assert made.headers["x-ratelimit-limit-requests"] == "50"
            place = f"/v1/prompts/{made.json()['prompt_id']}"
            for subject, status in (("anna", 200), ("boris", 404)):
                headers = bearer(Secret(issuer.token(sub=subject)))
                assert (await client.get(place, headers=headers)).status_code == status


async def test_a_token_that_runs_out_ends_its_answer():
    pytest.importorskip("jwt")
    from tests.issuer import Issuer

    from llamakit.stack.oidc_config import OidcConfig

    with Issuer() as issuer:
        issuer.publish()
        config = OidcConfig(issuer=issuer.url, audience=("llamakit",), leeway_s=0)
        slow = EchoInference(EchoConfig(models=("echo",), delay_s=0.02))
        async with serving(slow, oidc=config) as (client, _):
            headers = bearer(Secret(issuer.token(exp=int(time.time()) + 1)))
            answer = await client.post("/v1/chat/completions", json=chat_body("word " * 400), headers=headers)
            assert answer.status_code == 401


async def test_background_work_counts_against_its_owners_keys():
    async with serving(require_key=True) as (client, stack):
        key, _ = await stack.keys.create("ci", limits=KeyLimits(tokens_per_minute=5))
        body = {"model": "echo", "input": "word word word", "background": True}
        made = await client.post("/v1/responses", json=body, headers=bearer(key))
        assert made.status_code == 200

        async def is_kept_out() -> bool:
            return (await client.get("/v1/prompts", headers=bearer(key))).status_code == 429

        async with asyncio.timeout(5):
            while not await is_kept_out():
                await asyncio.sleep(0.02)


async def test_limits_of_the_server_hold_for_keys_without_their_own():
    async with serving(require_key=True, limits=KeyLimits(requests_per_minute=1)) as (client, stack):
        plain, _ = await stack.keys.create("plain")
        large, _ = await stack.keys.create("large", limits=KeyLimits(requests_per_minute=5))
        for key, codes in ((plain, [200, 429]), (large, [200, 200])):
            assert [(await client.get("/v1/models", headers=bearer(key))).status_code for _ in range(2)] == codes


async def test_the_document_says_each_scope():
    async with serving() as (client, _):
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert paths["/v1/chat/completions"]["post"]["security"] == [{"key": ["inference"]}]
    assert paths["/health"]["get"]["security"] == []


async def test_who_is_refused_is_not_called_by_anybodys_name(caplog):
    caplog.set_level("INFO", "llamakit")
    async with serving(require_key=True) as (client, _):
        await client.get("/v1/models", headers=bearer(Secret("sk-wrong-key")))
    assert [record.facts["principal"] for record in caplog.records if hasattr(record, "facts")] == ["unknown"]


async def test_a_key_that_the_configuration_names_too_may_do_no_more():
    stack = echo_stack()
    key, _ = await stack.keys.create("narrow", scopes=frozenset({Scope.models_read}))
    async with in_process(build_app(stack, ServeConfig(api_keys=(key,)))) as client:
        assert (await client.get("/v1/models", headers=bearer(key))).status_code == 200
        assert (await client.get("/metrics", headers=bearer(key))).status_code == 403
    await stack.aclose()


def test_two_servers_on_one_database_count_together(tmp_path):
    with slow_server(tmp_path, require_key=True) as one, slow_server(tmp_path, require_key=True) as other:
        limits = KeyLimits(requests_per_minute=12)
        key, _ = asyncio.run(elsewhere(tmp_path, lambda book: book.create("ci", limits=limits)))
        with httpx2.Client(headers=bearer(key)) as client:
            codes = [client.get(f"{server.base_url}/models").status_code for _ in range(10) for server in (one, other)]
        assert codes.count(200) == 12 and set(codes) == {200, 429}
