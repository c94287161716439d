"""Run config, resolving a provider by name, and routing by model."""

from __future__ import annotations

import importlib.metadata

import pytest

from llamakit.api.inference import ChatRequest, CompletionRequest, EmbeddingRequest, RequestContext, TokenizeRequest
from llamakit.core.config import Secret
from llamakit.core.errors import ConfigError, Conflict, InvalidRequest, NotFound, OutboundFailed, UnknownModel
from llamakit.core.messages import Done, user
from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.providers.specs import Api, ProviderSpec
from llamakit.server.apis import served
from llamakit.server.routing import Operation
from llamakit.stack.build import Stack, build_stack
from llamakit.stack.distribution import Distribution, ProviderEntry, single
from llamakit.stack.providers import Provider, Providers, build_providers
from llamakit.stack.resolve import build_provider, resolve_spec, specs
from llamakit.stack.router import InferenceRouter, Route
from llamakit.stack.run_config import ServeConfig, is_loopback

KEY = Secret("a-long-enough-key")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "localhost", "LOCALHOST.", "a.localhost", "::1", "[::1]", "::ffff:127.0.0.1"]
)
def test_loopback(host):
    assert is_loopback(host)
    assert not ServeConfig(host=host).is_exposed


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "127.0.0.1.evil.com", "localhost.a", ""])
def test_not_loopback(host):
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="API key"):
        ServeConfig(host=host)
    assert ServeConfig(host=host, api_keys=(KEY,)).is_exposed
    assert ServeConfig(host=host, allow_anonymous=True).is_exposed


@pytest.mark.parametrize(
    "fields",
    [
        {"port": -1},
        {"port": 65536},
        {"tls_cert": "x"},
        {"tls_client_ca": "x"},
        {"drain_s": 0},
        {"ping_s": float("nan")},
        {"api_keys": (Secret("short"),)},
        {"api_keys": (Secret("has a \n line end"),)},
        {"cors_origins": ("*",)},
        {"cors_origins": ("http://a/path",)},
        {"allowed_hosts": ("a:80",)},
    ],
    ids=str,
)
def test_settings_that_cannot_work(fields):
    with pytest.raises(ConfigError):
        ServeConfig(**fields)


def test_keys_do_not_show():
    assert "long-enough" not in repr(ServeConfig(api_keys=(KEY,)))


def test_unknown_providers_get_the_nearest_name():
    with pytest.raises(ConfigError, match="nearest: 'inline::echo'"):
        resolve_spec(Api.inference, "inline::ecko")


def test_other_packages_add_rows_but_never_replace_one(monkeypatch):
    class Point:
        name = "extra"

        def __init__(self, value):
            self.value = value

        def load(self):
            return self.value

    own = ProviderSpec(api=Api.inference, name="remote::own", target="llamakit.providers.inline.inference.echo:build")
    thief = ProviderSpec(api=Api.inference, name="inline::echo", target="os:system")
    points = [Point(own), Point(thief)]
    monkeypatch.setattr("llamakit.stack.resolve.entry_points", lambda group: points)
    rows = {spec.name: spec for spec in specs()}
    assert rows["remote::own"] is own and rows["inline::echo"] is not thief
    points.append(Point("not a row"))
    with pytest.raises(ConfigError, match="no ProviderSpec"):
        list(specs())
    assert importlib.metadata is not None


def test_a_need_that_nothing_meets_is_refused():
    spec = ProviderSpec(api=Api.inference, name="inline::x", target="nowhere:x", needs=(Api.inference,))
    with pytest.raises(ConfigError, match="needs inference"):
        build_provider(spec, {}, {})


async def test_build_from_a_config():
    stack = build_stack(single("inline::echo", ("a", "b"), {"dimensions": 4}))
    assert [model.name for model in await stack.inference.models()] == ["a", "b"]
    assert await stack.model_or_default(None) == "a"
    assert await stack.model_or_default("b") == "b"
    await stack.aclose()
    with pytest.raises(ConfigError, match="no setting"):
        build_stack(single("inline::echo", config={"colour": 1}))


async def test_without_a_default_the_only_model_is_meant():
    one = Stack(inference=EchoInference(EchoConfig(models=("only",))))
    assert await one.model_or_default(None) == "only"
    two = Stack(inference=EchoInference(EchoConfig(models=("a", "b"))))
    with pytest.raises(InvalidRequest, match="one of: a, b"):
        await two.model_or_default(None)


async def test_router_sends_each_model_to_its_provider():
    first, second = EchoInference(EchoConfig(models=("a",))), EchoInference(EchoConfig(models=("b",)))
    router = InferenceRouter(
        {"one": first, "two": second},
        {"a": Route(provider_id="one", name="a"), "b": Route(provider_id="two", name="b")},
    )
    context = RequestContext(id="r")
    chat = ChatRequest(model="b", messages=(user("x"),), context=context)
    assert isinstance([event async for event in router.chat(chat)][-1], Done)
    completion = CompletionRequest(model="b", prompt="x", context=context)
    assert isinstance([event async for event in router.complete(completion)][-1], Done)
    assert (len(first.contexts), len(second.contexts)) == (0, 2)
    assert (await router.embed(EmbeddingRequest(model="a", inputs=("x",), context=context))).prompt_tokens == 1
    assert (await router.tokenize(TokenizeRequest(model="a", prompt="x"))).ids == (256, 120)
    assert await router.detokenize("a", (120,)) == "x"
    assert (await router.tokenizer_info("b")).model == "b"
    assert [model.name for model in await router.models()] == ["a", "b"]
    assert (await router.model("b")).name == "b"
    assert (await router.load("a")).name == "a" and await router.unload("a") and not await router.unload("a")
    assert [model.name for model in await router.loaded()] == ["b"]
    assert [stats.model for stats in router.stats()] == ["a", "b"]
    with pytest.raises(UnknownModel, match="Served: a, b"):
        router.provider_of("c")
    assert (await router.health()).ready
    await second.aclose()
    assert not (await router.health()).ready


async def test_router_closes_every_provider_also_after_a_failure():
    class Stubborn(EchoInference):
        async def aclose(self) -> None:
            raise RuntimeError("no")

    last = EchoInference()
    with pytest.raises(RuntimeError):
        await InferenceRouter({"a": Stubborn(), "b": last}).aclose()
    assert not (await last.health()).ready


async def test_models_are_registered_and_forgotten():
    router = InferenceRouter({"one": EchoInference(EchoConfig(models=("a",)))})
    router.register("mine", Route(provider_id="one", name="a", metadata={"note": "x", "list": [1]}))
    router.register("mine", Route(provider_id="one", name="a", metadata={"note": "x", "list": [1]}))
    (info,) = await router.models()
    assert info.name == "mine" and info.details["note"] == "x" and "list" not in info.details
    assert (await router.tokenizer_info("mine")).model == "mine"
    with pytest.raises(Conflict, match="registered already"):
        router.register("mine", Route(provider_id="one", name="b"))
    with pytest.raises(NotFound, match="nearest: 'one'"):
        router.register("yours", Route(provider_id="onee", name="a"))
    router.unregister("mine")
    with pytest.raises(UnknownModel, match="no model 'mine' is registered"):
        router.unregister("mine")
    assert (await router.model("a")).name == "a"


async def test_a_provider_that_cannot_list_its_models_leaves_the_others_listed(caplog):
    class Mute(EchoInference):
        async def models(self):
            raise OutboundFailed("nobody there")

    both = {"mute": Mute(), "one": EchoInference(EchoConfig(models=("a",)))}
    assert [model.name for model in await InferenceRouter(both).models()] == ["one/a"]
    assert "provider mute lists no models: nobody there" in caplog.text
    with pytest.raises(OutboundFailed):
        await InferenceRouter({"mute": Mute()}).models()


def test_providers_are_built_after_those_they_need(monkeypatch):
    from llamakit.stack import providers

    order: list[str] = []

    def build(spec, config, needs):
        order.append(spec.name)
        assert set(needs) >= set(spec.needs)
        return object()

    needs = {"inline::second": (Api.inference,), "inline::first": (), "inline::lost": (Api.safety,)}
    rows = {name: ProviderSpec(api=Api.inference, name=name, target="x:y", needs=need) for name, need in needs.items()}
    monkeypatch.setattr(providers, "resolve_spec", lambda api, name: rows[name])
    monkeypatch.setattr(providers, "build_provider", build)
    second = ProviderEntry(provider_id="b", provider_type="inline::second")
    first = ProviderEntry(provider_id="a", provider_type="inline::first")
    wanted = Distribution(providers={Api.safety: (second,), Api.inference: (first,)})
    made, doors = build_providers(wanted, {Api.inference: lambda built: list(built.of(Api.inference))})
    assert order == ["inline::first", "inline::second"] and doors == {Api.inference: ["a"]}
    assert list(made.of(Api.safety)) == ["b"]
    lost = ProviderEntry(provider_id="c", provider_type="inline::lost")
    with pytest.raises(ConfigError, match="the providers c need each other's APIs"):
        build_providers(Distribution(providers={Api.safety: (lost,)}), {})


async def test_providers_are_closed_also_after_a_failure():
    closed: list[str] = []

    class Open:
        def __init__(self, name: str, fails: bool = False) -> None:
            self.name, self.fails = name, fails

        async def aclose(self) -> None:
            closed.append(self.name)
            if self.fails:
                raise RuntimeError(self.name)

    spec = ProviderSpec(api=Api.tools, name="inline::x", target="x:y")
    instances = (Open("a", fails=True), object(), Open("b"))
    rows = [
        Provider(api=Api.tools, entry=ProviderEntry(provider_id="x", provider_type="x"), spec=spec, instance=each)
        for each in instances
    ]
    rows.append(Provider(api=Api.inference, entry=rows[0].entry, spec=spec, instance=Open("router's")))
    with pytest.raises(RuntimeError, match="a"):
        await Providers(entries=rows).aclose()
    assert closed == ["a", "b"]


def test_only_the_apis_that_are_named_are_served():
    every = [
        Operation(name=tag, method="GET", path=f"/{tag}", about="", endpoint=None, tag=tag)
        for tag in ("health", "chat", "embeddings", "stored chat", "files")
    ]
    assert served(every, ()) == every
    assert [operation.name for operation in served(every, ("inference",))] == ["health", "chat", "embeddings"]
    assert [operation.name for operation in served(every, ("stored_chat",))] == ["health", "stored chat"]
    with pytest.raises(ConfigError, match="no API 'file'; nearest: 'files'"):
        served(every, ("file",))
