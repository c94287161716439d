"""The door of the engine: what a request must satisfy to run, and the state it starts with.

A refusal says which field is bad, what was found and what would work. Whether there is room right now is
the engine's question, not this one's.
"""

from __future__ import annotations

from array import array

from llamakit.core.errors import InvalidRequest, PromptTooLong
from llamakit.engine.penalties import has_penalties
from llamakit.engine.request import Request
from llamakit.engine.sequence import RequestState, Sequence


def open_request(
    request: Request, *, vocab_size: int, max_context: int, arrival: int, seed: int, now: float
) -> RequestState:
    """Check `request` against the model's vocabulary and the context; its state with the first choice.

    `seed` is used where the request names none.
    """
    sampling = request.sampling
    prompt = _prompt(request, vocab_size)
    for param, ids in (
        ("logit_bias", sampling.logit_bias),
        ("stop_token_ids", sampling.stop_ids),
        ("stop_ids", request.stop_ids),
    ):
        for token in ids:
            if not 0 <= token < vocab_size:
                raise InvalidRequest(
                    f"{param} has token id {token}, the model knows 0 to {vocab_size - 1}", param=param
                )
    choices = sampling.best_of or sampling.n
    is_ranked = choices > sampling.n
    needs_score = sampling.logprobs is not None or is_ranked
    ends = frozenset(sampling.stop_ids)
    state = RequestState(
        request=request,
        arrival=arrival,
        seed=seed if sampling.seed is None else sampling.seed,
        num_choices=choices,
        max_total=_max_total(request, max_context),
        stop_ids=ends if sampling.ignore_eos else ends | request.stop_ids,
        submitted_at=now,
        needs_score=needs_score,
        is_plain=sampling.is_greedy
        and not (needs_score or sampling.logit_bias or sampling.min_tokens or request.matcher)
        and not has_penalties(sampling),
        is_buffered=is_ranked,
        num_live=choices,
        scores=None if sampling.prompt_logprobs is None else [None],
    )
    state.sequences.append(Sequence(state, 0, prompt))
    return state


def _prompt(request: Request, vocab_size: int) -> array[int]:
    try:
        prompt = array("q", request.prompt_ids)
    except (TypeError, OverflowError) as error:
        raise InvalidRequest(f"prompt ids must be integers: {error}", param="prompt") from error
    low, high = min(prompt), max(prompt)
    if low < 0 or high >= vocab_size:
        raise InvalidRequest(
            f"the prompt has token id {low if low < 0 else high}, the model knows 0 to {vocab_size - 1}",
            param="prompt",
        )
    return prompt


def _max_total(request: Request, max_context: int) -> int:
    num_prompt, max_tokens = len(request.prompt_ids), request.sampling.max_tokens
    room = max_context - num_prompt
    if room < (1 if max_tokens is None else max_tokens):
        asked = "" if max_tokens is None else f" and max_tokens asks for {max_tokens} more"
        raise PromptTooLong(
            f"the prompt has {num_prompt} tokens{asked}, the context holds {max_context}; "
            "shorten the prompt, ask for fewer tokens or serve with a larger context"
        )
    return max_context if max_tokens is None else num_prompt + max_tokens
