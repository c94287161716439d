"""Distributions: what a file may say, what the environment fills in, and the ones that come with the package."""

from __future__ import annotations

import re

import pytest

from llamakit.cli.serve_tools import with_fetching
from llamakit.core.config import Secret
from llamakit.core.errors import ConfigError
from llamakit.providers.specs import Api
from llamakit.stack.border import settings
from llamakit.stack.build import build_stack
from llamakit.stack.distribution import Distribution, ModelEntry, ProviderEntry
from llamakit.stack.distribution_file import Source, find, load, own_folder, read, sections, shipped
from llamakit.stack.substitution import Substituted, substitute, variables

FILLED = {
    "DATABRICKS_HOST": "dbc-1.cloud.databricks.com",
    "DATABRICKS_TOKEN": "dapi-x",
    "TOGETHER_API_KEY": "sk-together",
    "FIREWORKS_API_KEY": "sk-fireworks",
    "ANTHROPIC_API_KEY": "sk-ant",
    "AWS_BEARER_TOKEN_BEDROCK": "bedrock-key",
    "POSTGRES_URL": "postgresql://llama@db/llama",
    "LLAMA_API_KEY": "sk-0123456789",
    "VLLM_URL": "http://10.0.0.5:8000",
}
"""Everything that the shipped distributions ask for."""


def of(text: str, **environ: str) -> Distribution:
    return read(Source(name="mine", place="mine.yaml", text=text), environ)


ECHO = """
providers:
  inference:
    - {provider_id: one, provider_type: "inline::echo", config: {models: [a], dimensions: "${env.SIZE:=4}"}}
    - {provider_id: two, provider_type: "inline::echo", config: {models: [b]}}
models:
  - {model_id: first, provider_id: one, provider_model_id: a}
  - {model_id: second, provider_id: two, provider_model_id: b, model_type: embedding, metadata: {dimensions: 32}}
storage: {database: ":memory:"}
"""


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_distribution_is_read_and_built(name, monkeypatch):
    for variable, value in FILLED.items():
        monkeypatch.setenv(variable, value)
    made = load(name, FILLED)
    assert made.name == name and made.about.endswith(".") and made.of(Api.inference)
    stack = build_stack(made)
    assert set(stack.providers.of(Api.inference)) == {row.provider_id for row in made.of(Api.inference)}
    assert stack.default_models == tuple(model.model_id for model in made.models)
    wanted = [v for v in variables(find(name).values(), {}) if v.need == "required"]
    if wanted:
        with pytest.raises(ConfigError, match=wanted[0].name):
            load(name, {})


def test_what_the_issue_names_is_shipped():
    wanted = "local ollama vllm tgi onprem together fireworks databricks bedrock cloud-any edge"
    assert set(shipped()) >= set(wanted.split())
    keys = "version apis providers models shields tool_groups vector_stores storage server auth telemetry"
    assert set(sections()) >= set(keys.split())


async def test_models_are_routed_by_name_to_their_providers():
    stack = build_stack(of(ECHO))
    models = {model.name: model for model in await stack.inference.models()}
    assert list(models) == ["first", "second"] and models["second"].kind == "embedding"
    assert models["second"].details["dimensions"] == 32
    assert (await stack.inference.model("first")).name == "first"
    assert (await stack.inference.model("two/b")).name == "two/b"
    assert await stack.model_or_default(None) == "first" and stack.default_models == ("first",)
    assert (await stack.inference.load("first")).name == "first" and await stack.inference.unload("second")
    assert [model.name for model in await stack.inference.loaded()] == ["first"]
    with pytest.raises(LookupError, match=r"nearest: 'first'.*Served: first, second.*one of: one, two"):
        await stack.inference.model("firts")
    await stack.aclose()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("modles: []", "unknown key 'modles'; nearest: 'models'"),
        ("server: {prot: 1}", "server: unknown key 'prot'; nearest: 'port'"),
        ("server: {api_keys: [x]}", "server: unknown key 'api_keys'"),
        ("server: {port: true}", "server.port: must be a number, got true or false"),
        ("server: {port: '80'}", "server.port: must be a number, got text"),
        ("server: {host: 0.0.0.0}", "server and auth: 0.0.0.0 can be reached from other machines"),
        ("auth: {api_keys: [short]}", "an API key has at least 8"),
        ("models: [{model: x}]", "models[0]: unknown key 'model'; nearest: 'model_id'"),
        ("models: [{model_id: x, provider_id: y}]", "for the provider 'y', which is not there. There are: none"),
        ("models: [{model_id: x}]", "names no provider_id, and there are 0"),
        ("providers: {infrence: []}", "no API 'infrence'; nearest: 'inference'"),
        ("providers: {inference: [{provider_id: x}]}", "providers.inference[0].provider_type: is missing"),
        ("providers: {inference: [{provider_id: a b, provider_type: x}]}", "provider_id holds letters"),
        ("storage: {database: 'mysql://u:hunter2@h'}", "storage is 'local'"),
        ("version: 2", "version must be 1"),
        ("version: 1\nversion: 1", "'version' is twice"),
        ("a: &x 1\nb: *x", "aliases are not used"),
        ("[1]", "must hold a mapping"),
        ("models: [", "is no YAML"),
        ("server: 5", "server: must be a mapping"),
        ("name: ${env.lower", "is none of"),
        ("name: ${env.NOT_THERE}", "must be set: NOT_THERE (for name)"),
        ("server: {offline: true}\nproviders: {inference: [{provider_id: x, provider_type: 'remote::vllm'}]}", "shuts"),
        ("server: {offline: true}\nfetch: {hosts: [a.example]}", "leave fetch.hosts out"),
        ("fetch: {hosts: ['https://a.example']}", "fetch.hosts holds names"),
        ("fetch: {hosts: [a.example], max_mb: 4096}", "fetch.max_mb"),
        ("providers: {inference: [{provider_id: '${env.X:+x}', provider_type: y}]}", "left out; set one of: X"),
        ("models: [{model_id: x, provider_id: p}, {model_id: x, provider_id: p}]", "'x' is there twice"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text, told):
    with pytest.raises(ConfigError, match=r"distribution mine: .*" + re.escape(told)) as caught:
        of(text)
    assert "hunter2" not in str(caught.value)


def test_an_unknown_provider_or_setting_is_told_with_the_nearest():
    row = "providers: {{inference: [{{provider_id: p, provider_type: '{}', config: {{{}}}}}]}}"
    with pytest.raises(ConfigError, match="nearest: 'remote::vllm'"):
        build_stack(of(row.format("remote::vlm", "")))
    with pytest.raises(ConfigError, match=r"provider 'p' of inference: .*no setting 'base_ulr'; nearest: 'base_url'"):
        build_stack(of(row.format("remote::vllm", "base_ulr: x")))


def test_settings_of_the_engine_are_checked_before_a_model_loads():
    row = "providers: {{inference: [{{provider_id: p, provider_type: 'inline::local', config: {{{}}}}}]}}"
    for wrong, told in {
        "context: '${env.SIZE}'": "context of the local provider: .*, got 'much'",
        "quantize: int3": "quantize of the local provider: .*int4",
        "max_loaded: 0": "max_loaded of the local provider must be at least 1",
        "keep_alive: soon": "a duration looks like",
        "thread: 1": "nearest: 'threads'",
    }.items():
        with pytest.raises(ConfigError, match=told):
            build_stack(of(row.format(wrong), SIZE="much"))
    build_stack(of(row.format("context: '${env.SIZE}', quantize: int4, keep_alive: -1"), SIZE="512"))


def test_what_may_be_fetched_is_nothing_unless_it_is_said():
    assert of("fetch: {hosts: ['*.a.example'], max_mb: 5}").fetch.hosts == ("*.a.example",)
    assert not of("name: mine").fetch.hosts
    given = with_fetching(of("fetch: {hosts: ['*.a.example']}"), ["10.0.0.5:9000", "*"]).fetch
    assert given.hosts == ("*.a.example", "10.0.0.5:9000", "*") and given.private == ("10.0.0.5",)


def test_sections_without_a_value_are_not_there():
    made = of("version: 1\nmodels:\nserver:\n  port:\n")
    assert made == Distribution(name="mine")


def test_the_environment_fills_in():
    environ = {"A": "1", "EMPTY": "", "FLAG": "yes"}
    written = {
        "plain": "${env.A}",
        "middle": "x-${env.A}-y",
        "default": "${env.B:=d:e}",
        "gone": "${env.B:=}",
        "empty counts as unset": "${env.EMPTY:=d}",
        "switch": "${env.FLAG:+on}",
        "off": "${env.B:+on}",
        "lists": ["${env.B:=}", "${env.A}"],
        "entries": [{"model_id": "${env.B:+m}", "x": "${env.NEVER_READ}"}, {"model_id": "m"}],
        "lower": "${env.lower_case:=works}",
    }
    assert substitute(written, environ) == {
        "plain": "1",
        "middle": "x-1-y",
        "default": "d:e",
        "empty counts as unset": "d",
        "switch": "on",
        "lists": ["1"],
        "entries": [{"model_id": "m"}],
        "lower": "works",
    }
    assert [v.name for v in variables(written, environ)] == ["A", "B", "EMPTY", "FLAG", "lower_case"]
    with pytest.raises(ConfigError, match=r"ONE \(for a\[0\]\.b\); TWO \(for c\)"):
        substitute({"a": [{"b": "${env.ONE}"}], "c": "${env.TWO}"}, {})


def test_settings_take_their_form_from_what_they_look_like():
    given = {"a": "12", "b": "1.5", "c": "true", "d": "007", "e": "1.50", "f": "1e3", "g": "x"}
    made = settings({key: Substituted(value) for key, value in given.items()} | {"h": "12"})
    assert made == {"a": 12, "b": 1.5, "c": True, "d": "007", "e": "1.50", "f": "1e3", "g": "x", "h": "12"}
    assert settings({"api_key": "12345678", "nested": {"hf_token": "x"}, "monkey": "x", "api_key_env": "V"}) == {
        "api_key": Secret("12345678"),
        "nested": {"hf_token": Secret("x")},
        "monkey": "x",
        "api_key_env": "V",
    }


def test_secrets_do_not_show(monkeypatch):
    made = load("together", {"TOGETHER_API_KEY": "sk-hunter2", "LLAMA_API_KEY": "sk-hunter2-too"})
    assert "hunter2" not in repr(made)
    assert "hunter2" not in repr(build_stack(made).distribution)


def test_a_distribution_is_found_by_path_and_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMA_HOME", str(tmp_path))
    path = tmp_path / "any.yaml"
    path.write_text("about: Mine.\n")
    assert load(str(path)).about == "Mine." and load(str(path)).name == "any"
    own_folder().mkdir()
    (own_folder() / "local.yaml").write_text("about: In its place.\n")
    assert load("local").about == "In its place."
    with pytest.raises(ConfigError, match=r"nearest: 'ollama'.*There are: bedrock, .*path of a file"):
        find("olama")
    with pytest.raises(ConfigError, match="no file"):
        find("./none.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ConfigError, match="at most 1048576"):
        find(str(tmp_path / "large.yaml"))


def test_ids_of_providers_are_distinct_within_an_api():
    row = ProviderEntry(provider_id="x", provider_type="inline::echo")
    with pytest.raises(ConfigError, match=r"providers.inference: 'x' is there twice"):
        Distribution(providers={"inference": (row, row)})
    with pytest.raises(ConfigError, match="holds letters"):
        ProviderEntry(provider_id="x/y", provider_type="inline::echo")
    with pytest.raises(ConfigError, match="1 to 512"):
        ModelEntry(model_id="")
