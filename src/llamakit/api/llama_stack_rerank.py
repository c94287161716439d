"""Llama Stack's rerank: texts in the order in which they answer a question.

A model made for embedding scores each text by the angle between its vector and the question's. Any other model is
asked of each text whether it answers the question, and the score is how sure it is of its yes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.inference import ChatRequest, EmbeddingRequest, Embeddings, RequestContext
from llamakit.api.limits import LIMITS
from llamakit.api.openai_messages import OBJECT, WORD_OR_OBJECT
from llamakit.api.wire import FIRST, TEXT, ModelName, Wire
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import Answer, system, user
from llamakit.core.sampling import Constraint

_TASK = (
    "You judge whether a passage helps to answer a question. Answer with one word: yes if it does, no if it does not."
)
_WORDS = ("yes", "no")
_ALTERNATIVES = 20
"""Tokens looked at for the two words: a vocabulary spells each in several ways."""


class LlamaStackRerankPart(Wire):
    """A text as an object; images are refused."""

    type: Literal["text", "image_url"] = "text"
    text: str | None = None


LlamaStackRerankText = Annotated[
    Annotated[str, TEXT] | Annotated[LlamaStackRerankPart, OBJECT],
    WORD_OR_OBJECT,
]


class LlamaStackRerankRequest(Wire):
    """Body of `POST /v1/inference/rerank`."""

    model: ModelName
    query: LlamaStackRerankText
    items: Annotated[list[LlamaStackRerankText], FIRST]
    max_num_results: Annotated[int, Field(ge=1)] | None = None
    """All of them when left out."""


class LlamaStackRanked(Wire):
    """A text's place among those that were sent."""

    index: int
    """Its position in the request."""
    relevance_score: float
    """In [0, 1], more is better; scores of two models do not compare."""


class LlamaStackRerank(Wire):
    """The texts, best first; of equal ones the earlier."""

    data: list[LlamaStackRanked]


def read_texts(wire: LlamaStackRerankRequest) -> tuple[str, tuple[str, ...]]:
    """The question and the texts; raises `InvalidRequest` naming the item at fault."""
    if not 0 < len(wire.items) <= LIMITS.prompts:
        raise InvalidRequest(f"items must hold 1 to {LIMITS.prompts}, got {len(wire.items)}", param="items")
    texts = tuple(_text(item, f"items[{index}]") for index, item in enumerate(wire.items))
    return _text(wire.query, "query"), texts


def to_embedding(model: str, query: str, texts: Sequence[str], context: RequestContext) -> EmbeddingRequest:
    """The request for the vectors of the question and of every text, in this order."""
    return EmbeddingRequest(model=model, inputs=(query, *texts), context=context)


def to_questions(
    model: str, query: str, texts: Sequence[str], *, request_id: str, salt: str = ""
) -> tuple[ChatRequest, ...]:
    """One request per text, to be answered yes or no; what they have in common comes first, and is computed once."""
    sampling = {
        "temperature": 0.0,
        "max_tokens": 2,
        "logprobs": _ALTERNATIVES,
        "constraint": Constraint(kind="choice", source=json.dumps(_WORDS)),
    }
    return tuple(
        ChatRequest(
            model=model,
            messages=(system(_TASK), user(f"Question: {query}\n\nPassage: {text}")),
            context=RequestContext(id=f"{request_id}-{index}", salt=salt),
            sampling=sampling,
        )
        for index, text in enumerate(texts)
    )


def scores_of_vectors(made: Embeddings) -> list[float]:
    """How near each text is to the question: the cosine, and 0 for what points away."""
    query, *texts = made.vectors
    return [max(0.0, _cosine(query, text)) for text in texts]


def score_of_answer(answer: Answer) -> float:
    """How likely the first token was to begin a yes rather than a no."""
    choice = answer.choices[0]
    mass = {"y": 0.0, "n": 0.0}
    for first in choice.logprobs[:1]:
        for token in {one.id: one for one in (*first.top, first)}.values():
            begins = token.token.strip().lower()[:1]
            if begins in mass:
                mass[begins] += math.exp(token.logprob)
    total = mass["y"] + mass["n"]
    return mass["y"] / total if total else float(choice.message.text.strip().lower().startswith("y"))


def ranked_body(scores: Sequence[float], limit: int | None) -> dict[str, Any]:
    """The wire form of the ranking."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return {"data": [{"index": index, "relevance_score": scores[index]} for index in order[:limit]]}


def _text(item: str | LlamaStackRerankPart, param: str) -> str:
    if isinstance(item, LlamaStackRerankPart):
        if item.type != "text":
            raise InvalidRequest(f"{param}.type: the models here rank text only", param=f"{param}.type")
        item, param = item.text or "", f"{param}.text"
    if not item.strip():
        raise InvalidRequest(f"{param} must not be empty", param=param)
    return item


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    norm = math.sqrt(_dot(one, one) * _dot(other, other))
    return min(1.0, _dot(one, other) / norm) if norm else 0.0


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
