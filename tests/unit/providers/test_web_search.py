"""Search of the web and Wolfram|Alpha against a local server that speaks each service's wire."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.faultserver import Answer, Asked, faulty

from llamakit.core.errors import ConfigError, InvalidRequest, ToolError
from llamakit.providers.remote.tools import web_search, wolfram_alpha
from llamakit.providers.shared.foreign_text import plain
from llamakit.providers.shared.search_engines import ENGINES

PAGES = [
    {"title": "Llamas <b>&amp;</b> alpacas", "url": "https://example.org/llama", "text": "A llama\u202e is\nwoolly."},
    {"title": "", "url": "https://www.example.com/a?b=c", "text": "x" * 5000},
    {"title": "Bad", "url": "javascript:alert(1)", "text": "no"},
    {"title": "Worse", "url": None, "text": "no"},
]
ANSWERS = {
    "brave-search": lambda pages: {
        "web": {
            "results": [
                {"title": p["title"], "url": p["url"], "description": p["text"], "extra_snippets": ["More."]}
                for p in pages
            ]
        }
    },
    "tavily-search": lambda pages: {
        "results": [{"title": p["title"], "url": p["url"], "content": p["text"]} for p in pages]
    },
    "bing-search": lambda pages: {
        "webPages": {"value": [{"name": p["title"], "url": p["url"], "snippet": p["text"]} for p in pages]}
    },
    "searxng": lambda pages: {"results": [{"title": p["title"], "url": p["url"], "content": p["text"]} for p in pages]},
}


def provider(engine: str, url: str, **config):
    key = {} if engine == "searxng" else {"api_key": "hunter2"}
    return web_search.build({"engine": engine, "base_url": url, **key, **config}, {})


@pytest.mark.parametrize("engine", ANSWERS)
async def test_every_service_is_asked_and_read_by_its_own_wire(engine):
    async def script(asked: Asked, answer: Answer):
        await answer.json(ANSWERS[engine](PAGES))

    async with faulty(script) as server:
        search = provider(engine, f"http://127.0.0.1:{server.port}")
        tool = await search.open("me", {"type": "web_search", "search_context_size": "low"})
        result = await tool.call("web_search", json.dumps({"query": "llama  wool"}))
        second = await tool.call("web_search", json.dumps({"query": "again"}))
        await search.aclose()
    assert "[1] Llamas & alpacas\nhttps://example.org/llama\nA llama is woolly." in result.output
    assert "[2] www.example.com" in result.output and len(result.output) < 2000
    assert "javascript" not in result.output and "[3]" not in result.output and "[3]" in second.output
    assert result.citations["[1]"] == {
        "type": "url_citation",
        "url": "https://example.org/llama",
        "title": "Llamas & alpacas",
    }
    action = result.fields["action"]
    assert action["query"] == "llama  wool" and action["sources"][0] == {"type": "url", "url": PAGES[0]["url"]}
    asked = server.asked[0]
    sent = asked.json() if asked.body else {k: v[0] for k, v in parse_qs(urlsplit(asked.path).query).items()}
    assert "llama wool" in sent.values() and "hunter2" not in asked.path
    row = next(one for one in ENGINES if one.name == engine)
    assert asked.headers.get(row.key_header, "") == (row.key_prefix + "hunter2" if row.key_header else "")


async def test_domains_and_country_narrow_the_search():
    async def script(asked: Asked, answer: Answer):
        await answer.json(ANSWERS["brave-search"](PAGES))

    async with faulty(script) as server:
        search = provider("brave-search", f"http://127.0.0.1:{server.port}")
        settings = {"filters": {"allowed_domains": ["example.com"]}, "user_location": {"country": "de"}}
        tool = await search.open("me", {**settings, "external_web_access": True})
        result = await tool.call("web_search", '{"query": "llama"}')
        await search.aclose()
    assert [source["url"] for source in result.fields["action"]["sources"]] == ["https://www.example.com/a?b=c"]
    sent = parse_qs(urlsplit(server.asked[0].path).query)
    assert sent["q"] == ["llama site:example.com"] and sent["country"] == ["DE"]


@pytest.mark.parametrize(
    "settings",
    [
        {"external_web_access": False},
        {"search_content_types": ["image"]},
        {"filters": {"allowed_domains": ["not a domain"]}},
        {"filters": {"allowed": []}},
        {"filters": []},
        {"search_context_size": "huge"},
        {"user_location": {"country": "Germany"}},
        {"max_results": 1000},
        {"nonsense": 1},
    ],
)
async def test_what_cannot_be_honoured_is_refused(settings):
    search = provider("tavily-search", "http://127.0.0.1:9")
    with pytest.raises(InvalidRequest):
        await search.open("me", settings)
    await search.aclose()


async def test_a_failing_service_is_told_to_the_model_without_the_key():
    async def script(asked: Asked, answer: Answer):
        await answer.json({"error": {"message": f"bad key {asked.headers['x-subscription-token']}"}}, 401)

    async with faulty(script) as server:
        search = provider("brave-search", f"http://127.0.0.1:{server.port}")
        tool = await search.open("me", {})
        with pytest.raises(ToolError) as caught:
            await tool.call("web_search", '{"query": "x"}')
        assert "refused our key" in str(caught.value) and "hunter2" not in str(caught.value)
        for arguments in ("{}", '{"query": " "}', '{"query": 3}', "no", json.dumps({"query": "x" * 401})):
            with pytest.raises(ToolError):
                await tool.call("web_search", arguments)
        await search.aclose()


def test_a_provider_says_what_it_lacks(monkeypatch):
    for name in ("BRAVE_SEARCH_API_KEY", "BRAVE_API_KEY", "SEARXNG_URL", "WOLFRAM_ALPHA_API_KEY", "TAVILY_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="BRAVE_SEARCH_API_KEY"):
        web_search.build({"engine": "brave-search"}, {})
    with pytest.raises(ConfigError, match="SEARXNG_URL"):
        web_search.build({"engine": "searxng"}, {})
    with pytest.raises(ConfigError, match="no setting 'api_kay'"):
        web_search.build({"engine": "brave-search", "api_kay": "x"}, {})
    with pytest.raises(ConfigError, match="WOLFRAM_ALPHA_API_KEY"):
        wolfram_alpha.build({}, {})
    monkeypatch.setenv("TAVILY_API_KEY", "from the environment".replace(" ", "-"))
    assert web_search.build({"engine": "tavily-search"}, {}).group == "builtin::websearch"


async def test_wolfram_alpha_answers_and_refuses_in_words():
    async def script(asked: Asked, answer: Answer):
        question = parse_qs(urlsplit(asked.path).query)["input"][0]
        status = {"ok": 200, "what": 501, "key": 403, "down": 500}[question]
        await answer.head(status, "text/plain")
        await answer.send(f"Input: {question}\n\nResult:\n42\x1b[31m\n".encode())

    async with faulty(script) as server:
        wolfram = wolfram_alpha.build({"api_key": "hunter2", "base_url": f"http://127.0.0.1:{server.port}"}, {})
        tool = await wolfram.open("me", {})
        assert (await tool.call("wolfram_alpha", '{"query": "ok"}')).output == "Input: ok\nResult:\n42 [31m"
        for question, said in (("what", "ask otherwise"), ("key", "WOLFRAM_ALPHA_API_KEY"), ("down", "answered 500")):
            with pytest.raises(ToolError, match=said):
                await tool.call("wolfram_alpha", json.dumps({"query": question}))
        with pytest.raises(InvalidRequest):
            await wolfram.open("me", {"units": "metric"})
        await wolfram.aclose()
    assert server.asked[0].headers["authorization"] == "Bearer hunter2" and "hunter2" not in server.asked[0].path


@settings(deadline=None, max_examples=80)
@given(st.text(max_size=300), st.integers(1, 50))
def test_foreign_text_is_one_bounded_visible_line(text, most):
    line = plain(text, most)
    assert len(line) <= most and "\n" not in line and "\u202e" not in line and "\x1b" not in line
    assert plain(None, most) == ""
