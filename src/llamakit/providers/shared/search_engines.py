"""The wires of web search services: how each is asked, and where its results lie. Data and small functions.

Sources: the services' public API references (Brave Web Search v1, Tavily Search, Bing Web Search v7, SearXNG's
search API).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """What is searched for."""

    text: str
    count: int
    allowed: tuple[str, ...] = ()
    """Domains that results come from; empty allows all."""
    blocked: tuple[str, ...] = ()
    country: str | None = None
    """Two letters."""

    def with_sites(self) -> str:
        """The text with its domains as the operators that search engines share."""
        sites = " OR ".join(f"site:{domain}" for domain in self.allowed)
        parts = [self.text, f"({sites})" if len(self.allowed) > 1 else sites]
        return " ".join([part for part in parts if part] + [f"-site:{domain}" for domain in self.blocked])


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """A result as it came."""

    title: object
    url: object
    text: object


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """One service."""

    name: str
    title: str
    ask: Callable[[Query], tuple[str, Mapping[str, Any] | None]]
    """Path with its query, and a body where it takes one."""
    read: Callable[[Mapping[str, Any]], Iterator[Hit]]
    base_url: str = ""
    """Empty where everybody runs their own."""
    base_url_env: str | None = None
    key_env: tuple[str, ...] = ()
    """Variables that a key may come from, the first one that is set."""
    key_header: str = ""
    key_prefix: str = ""
    has_country: bool = False
    """Whether it takes a country."""
    hint: str = "check the key"
    """What to do when it refuses."""


def _list(value: Any, *path: str) -> Iterator[Mapping[str, Any]]:
    """The objects of a list at a path of an answer; nothing where the answer has another shape."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, list):
        yield from (one for one in value if isinstance(one, Mapping))


def _ask_brave(query: Query) -> tuple[str, None]:
    fields = {"q": query.with_sites(), "count": query.count, "result_filter": "web", "text_decorations": "false"}
    country = {} if query.country is None else {"country": query.country}
    return f"/res/v1/web/search?{urlencode({**fields, **country})}", None


def _read_brave(answer: Mapping[str, Any]) -> Iterator[Hit]:
    for one in _list(answer, "web", "results"):
        more = one.get("extra_snippets")
        snippets = [one.get("description"), *(more if isinstance(more, list) else ())]
        text = " ".join(snippet for snippet in snippets if isinstance(snippet, str))
        yield Hit(title=one.get("title"), url=one.get("url"), text=text)


def _ask_tavily(query: Query) -> tuple[str, Mapping[str, Any]]:
    domains = {"include_domains": list(query.allowed), "exclude_domains": list(query.blocked)}
    asked = {"query": query.text, "max_results": query.count, "search_depth": "basic", "include_answer": False}
    return "/search", {**asked, **{name: value for name, value in domains.items() if value}}


def _read_tavily(answer: Mapping[str, Any]) -> Iterator[Hit]:
    for one in _list(answer, "results"):
        yield Hit(title=one.get("title"), url=one.get("url"), text=one.get("content"))


def _ask_bing(query: Query) -> tuple[str, None]:
    fields = {"q": query.with_sites(), "count": query.count, "responseFilter": "Webpages", "textFormat": "Raw"}
    country = {} if query.country is None else {"cc": query.country}
    return f"/v7.0/search?{urlencode({**fields, **country})}", None


def _read_bing(answer: Mapping[str, Any]) -> Iterator[Hit]:
    for one in _list(answer, "webPages", "value"):
        yield Hit(title=one.get("name"), url=one.get("url"), text=one.get("snippet"))


def _ask_searxng(query: Query) -> tuple[str, None]:
    return f"/search?{urlencode({'q': query.with_sites(), 'format': 'json', 'categories': 'general'})}", None


def _read_searxng(answer: Mapping[str, Any]) -> Iterator[Hit]:
    for one in _list(answer, "results"):
        yield Hit(title=one.get("title"), url=one.get("url"), text=one.get("content"))


ENGINES: tuple[Engine, ...] = (
    Engine(
        name="brave-search",
        title="Brave Search",
        ask=_ask_brave,
        read=_read_brave,
        base_url="https://api.search.brave.com",
        key_env=("BRAVE_SEARCH_API_KEY", "BRAVE_API_KEY"),
        key_header="x-subscription-token",
        has_country=True,
    ),
    Engine(
        name="tavily-search",
        title="Tavily",
        ask=_ask_tavily,
        read=_read_tavily,
        base_url="https://api.tavily.com",
        key_env=("TAVILY_SEARCH_API_KEY", "TAVILY_API_KEY"),
        key_header="authorization",
        key_prefix="Bearer ",
    ),
    Engine(
        name="bing-search",
        title="Bing",
        ask=_ask_bing,
        read=_read_bing,
        base_url="https://api.bing.microsoft.com",
        base_url_env="BING_BASE_URL",
        key_env=("BING_API_KEY", "BING_SEARCH_API_KEY"),
        key_header="ocp-apim-subscription-key",
        has_country=True,
    ),
    Engine(
        name="searxng",
        title="SearXNG",
        ask=_ask_searxng,
        read=_read_searxng,
        base_url_env="SEARXNG_URL",
        hint="its settings.yml must list json under search.formats",
    ),
)
