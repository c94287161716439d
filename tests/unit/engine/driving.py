"""How the engine's tests run requests and read the events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from llamakit.core.sampling import SamplingParams
from llamakit.engine.config import EngineConfig, SpeculationConfig
from llamakit.engine.engine import Engine
from llamakit.engine.request import (
    EndEvent,
    EngineEvent,
    ErrorEvent,
    PrefillEvent,
    PromptEvent,
    Request,
    RequestEnd,
    TokenEvent,
)

NO_SPECULATION = SpeculationConfig(max_tokens=0)


@dataclass
class Heard:
    """Everything the events said about one request."""

    tokens: dict[int, list[int]] = field(default_factory=dict)
    logprobs: dict[int, list[float | None]] = field(default_factory=dict)
    tops: dict[int, list[tuple]] = field(default_factory=dict)
    ends: dict[int, EndEvent] = field(default_factory=dict)
    progress: list[PrefillEvent] = field(default_factory=list)
    prompt: PromptEvent | None = None
    last: RequestEnd | ErrorEvent | None = None

    def add(self, event: EngineEvent) -> None:
        assert self.last is None, "an event after the last one"
        match event:
            case TokenEvent():
                assert event.choice not in self.ends, "a token after the end"
                self.tokens.setdefault(event.choice, []).append(event.token)
                self.logprobs.setdefault(event.choice, []).append(event.logprob)
                self.tops.setdefault(event.choice, []).append(event.top)
            case EndEvent():
                assert event.choice not in self.ends
                self.ends[event.choice] = event
            case PrefillEvent():
                assert not self.tokens
                self.progress.append(event)
            case PromptEvent():
                assert self.prompt is None and not self.tokens
                self.prompt = event
            case RequestEnd() | ErrorEvent():
                assert event.is_last
                self.last = event

    @property
    def outcome(self) -> tuple:
        """What must not depend on company: tokens, scores and ends."""
        return self.tokens, self.logprobs, self.tops, self.ends, self.prompt


def listen(events: Iterable[EngineEvent], heard: dict[str, Heard]) -> None:
    for event in events:
        heard.setdefault(event.request_id, Heard()).add(event)


def run(engine: Engine, requests: Sequence[Request], *, max_steps: int = 20_000) -> dict[str, Heard]:
    """Submit all, step to the end, check that every block came back."""
    for request in requests:
        engine.submit(request)
    heard: dict[str, Heard] = {}
    for _ in range(max_steps):
        if not engine.has_work:
            break
        listen(engine.step(), heard)
    check_idle(engine)
    assert set(heard) == {request.id for request in requests}
    assert all(each.last is not None for each in heard.values())
    return heard


def check_idle(engine: Engine) -> None:
    """Nothing runs, nothing waits, and no block is held."""
    stats = engine.stats()
    assert not engine.has_work
    assert (stats.running, stats.waiting, stats.blocks_used) == (0, 0, 0), stats


def request(prompt: Sequence[int], name: str = "r", **sampling: object) -> Request:
    """A request with these sampling fields; greedy and short unless told otherwise."""
    fields = {"temperature": 0.0, "max_tokens": 8} | sampling
    return Request(id=name, prompt_ids=prompt, sampling=SamplingParams(**fields))  # type: ignore[arg-type]


def plain(**changes: object) -> EngineConfig:
    """A configuration without speculation."""
    return EngineConfig(**({"speculation": NO_SPECULATION} | changes))  # type: ignore[arg-type]
