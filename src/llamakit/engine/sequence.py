"""What the engine remembers of a request while it runs: its state, and a `Sequence` for each choice.

Plain bookkeeping that scheduler, sampler and engine share; decides nothing.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from llamakit.engine.penalties import History
from llamakit.engine.prefix import Node
from llamakit.engine.request import EndEvent, Matcher, Request, Stopper, TokenEvent, TokenScore


class Sequence:
    """One choice of a request: its tokens, and which of their keys and values are in the cache.

    `tokens` is prompt and answer; the first `num_computed` of them have keys and values in `blocks`. While
    the choice decodes, exactly the last token is not computed yet.
    """

    __slots__ = (
        "acceptance",
        "blocks",
        "choice",
        "draft_computed",
        "draft_settled",
        "epoch",
        "finished",
        "history",
        "key",
        "matcher",
        "node",
        "num_computed",
        "num_inserted",
        "num_prompt",
        "since_probe",
        "state",
        "stopper",
        "sum_logprob",
        "tokens",
    )

    def __init__(self, state: RequestState, choice: int, tokens: array[int]) -> None:
        self.state = state
        self.choice = choice
        self.key = (state.request.priority, state.arrival, choice)
        """Order of service, most urgent first."""
        self.tokens = tokens
        self.num_prompt = len(state.request.prompt_ids)
        self.num_computed = 0
        self.blocks: array[int] = array("q")
        self.node: Node | None = None
        """Node of the prefix tree for the last of the first `num_inserted` blocks."""
        self.num_inserted = 0
        self.epoch = 0
        """The tree's epoch when the blocks were taken."""
        self.matcher: Matcher | None = None
        self.stopper: Stopper | None = None
        self.history: History | None = None
        self.sum_logprob = 0.0
        self.finished = False
        self.draft_computed = 0
        """Tokens whose keys and values the draft model has."""
        self.draft_settled = 0
        """Full blocks known to hold the draft model's keys and values."""
        self.acceptance = 0.0
        """Running share of proposed tokens that were kept."""
        self.since_probe = 0
        """Steps since a token was last proposed."""

    def __lt__(self, other: Sequence) -> bool:
        return self.key < other.key

    @property
    def num_generated(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - self.num_prompt

    @property
    def num_pending(self) -> int:
        """Tokens that are known and not computed."""
        return len(self.tokens) - self.num_computed


@dataclass(eq=False, slots=True)
class RequestState:
    """One request, from submission to its last event."""

    request: Request
    arrival: int
    seed: int
    num_choices: int
    max_total: int
    """Most tokens of a sequence, prompt included."""
    stop_ids: frozenset[int]
    """Ids that end a choice."""
    submitted_at: float
    needs_score: bool
    """Whether the logprob of each token must be known."""
    is_plain: bool
    """Whether the next token is simply the most likely one."""
    is_buffered: bool
    """Whether events of choices wait until the best are known."""
    sequences: list[Sequence] = field(default_factory=list)
    num_live: int = 0
    """Choices that have not ended."""
    is_forked: bool = False
    """Whether all choices exist; before, the first one computes the prompt for all."""
    is_over: bool = False
    first_step_at: float | None = None
    first_token_at: float | None = None
    cached_tokens: int = 0
    completion_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    scores: list[TokenScore | None] | None = None
    """Scores of the prompt's tokens so far, the first None; None when not asked for."""
    buffered: dict[int, list[TokenEvent | EndEvent]] = field(default_factory=dict)

    @property
    def num_unscored(self) -> int:
        """Prompt tokens whose scores are asked for and still missing."""
        return 0 if self.scores is None else len(self.request.prompt_ids) - len(self.scores)
