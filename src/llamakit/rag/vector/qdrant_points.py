"""Chunks and filters as Qdrant spells them: collections, points, conditions, and words as sparse vectors.

Pure translation: what is asked when, and over which wire, is not known here.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llamakit.core.errors import InvalidRequest
from llamakit.rag.chunk import Chunk
from llamakit.rag.embed import Vectors
from llamakit.rag.filters import AttributeValue, Combine, Compare, Filter, columns
from llamakit.rag.vector.local import MAX_WORDS, plain_word
from llamakit.rag.vector.store import NewChunk, Source, StoredChunk

MEANING, WORDS = "meaning", "words"
"""The two vectors of a point."""
FACTS = "facts"
"""Attributes as words of one field, name and value together: a filter for a value is one look into its index."""
INDEXES = {
    "owner": "keyword",
    "document": "keyword",
    "generation": "integer",
    "state": "keyword",
    FACTS: "keyword",
    "numbers[].name": "keyword",
    "numbers[].value": "float",
}
"""What points are filtered by."""
UNSEEN, SEEN = {"state": "new"}, {"state": "live"}
_WORD = re.compile(r"\w+")
# BM25 (Robertson and Zaragoza, 2009): the share of a document is stored, the rarity of a word is Qdrant's part.
_K1, _B = 1.2, 0.75
_USUAL_WORDS = 256
"""Words of a chunk that counts as neither long nor short; a fixed number, so that weights never need to change."""
_ORDERS = ("gt", "gte", "lt", "lte")

Condition = dict[str, Any]


def collection_body(dimension: int) -> dict[str, Any]:
    """What a collection is made with. Vectors have length one, so the inner product is the cosine."""
    return {
        "vectors": {MEANING: {"size": dimension, "distance": "Dot"}},
        "sparse_vectors": {WORDS: {"modifier": "idf"}},
    }


def point_id(chunk: str) -> str:
    """The point of a chunk: Qdrant takes numbers and UUIDs alone, so it is a digest of the chunk's id."""
    return str(uuid.UUID(bytes=hashlib.sha256(chunk.encode()).digest()[:16]))


def point_of(owner: str, source: Source, generation: int, position: int, new: NewChunk, vector: Vectors) -> Condition:
    """A chunk that is not to be found before it is `SEEN`."""
    chunk = new.chunk
    words = _document_words(chunk.text)
    return {
        "id": point_id(new.id),
        "vector": {MEANING: vector.tolist()} | ({WORDS: words} if words["indices"] else {}),
        "payload": {
            "owner": owner,
            "document": source.id,
            "generation": generation,
            **UNSEEN,
            "position": position,
            "id": new.id,
            "text": chunk.text,
            "page": chunk.page,
            "start": chunk.start,
            "end": chunk.end,
            "tokens": chunk.tokens,
            "headings": list(chunk.headings),
            "metadata": dict(new.metadata),
            **source_payload(source),
        },
    }


def source_payload(source: Source) -> dict[str, Any]:
    """What a chunk tells of its document: attributes to be read, and the same to be compared."""
    pairs = [(name, columns(value)[1]) for name, value in source.attributes.items()]
    return {
        "name": source.name,
        "attributes": dict(source.attributes),
        FACTS: [_fact(name, value) for name, value in source.attributes.items()],
        "numbers": [{"name": name, "value": number} for name, number in pairs if number is not None],
    }


def _fact(name: str, value: AttributeValue) -> str:
    """One attribute as one word; the length keeps names and values apart."""
    text, number = columns(value)
    return f"{len(name)} {name}" + (f"={text}" if number is None else f"#{number + 0.0!r}")


def chunk_of(payload: Mapping[str, Any]) -> StoredChunk:
    """The chunk of a point; `KeyError` or `TypeError` for a point that was not made here."""
    chunk = Chunk(
        text=payload["text"],
        page=payload["page"],
        start=payload["start"],
        end=payload["end"],
        tokens=payload["tokens"],
        headings=tuple(payload["headings"]),
    )
    return StoredChunk(
        payload["id"], payload["document"], payload["name"], chunk, payload["attributes"], payload["metadata"]
    )


def is_equal(name: str, value: str | int) -> Condition:
    """A field that has exactly this value."""
    return {"key": name, "match": {"value": value}}


def living(owner: str, *more: Condition) -> Condition:
    """The filter that every reading has: points of the owner that are not in the making."""
    return {"must": [is_equal("owner", owner), is_equal("state", SEEN["state"]), *more]}


def orders_texts(filter: Filter) -> bool:
    """Whether a filter asks which text comes first, which Qdrant cannot decide."""
    if isinstance(filter, Combine):
        return any(orders_texts(part) for part in filter.filters)
    return filter.operator in _ORDERS and isinstance(filter.values[0], str)


def condition_of(filter: Filter, facts: Sequence[str] = ()) -> Condition:
    """A filter as a condition. `facts`: all that the collection has, where `orders_texts`."""
    if isinstance(filter, Combine):
        parts = [condition_of(part, facts) for part in filter.filters]
        return {"must" if filter.operator == "and" else "should": parts}
    if filter.operator in _ORDERS:
        return _ordered(filter, facts)
    holds = {"key": FACTS, "match": {"any": [_fact(filter.name, value) for value in filter.values]}}
    return {"must_not": [holds]} if filter.operator in ("ne", "nin") else holds


def _ordered(filter: Compare, facts: Sequence[str]) -> Condition:
    value = filter.values[0]
    if not isinstance(value, str):
        stands = {"key": "value", "range": {filter.operator: float(value)}}
        return {"nested": {"key": "numbers", "filter": {"must": [is_equal("name", filter.name), stands]}}}
    decide = {"gt": value.__lt__, "gte": value.__le__, "lt": value.__gt__, "lte": value.__ge__}[filter.operator]
    head = _fact(filter.name, "")
    found = [fact for fact in facts if fact.startswith(head) and decide(fact.removeprefix(head))]
    # No fact ends like this one, so that nothing is found where no text fits.
    return {"key": FACTS, "match": {"any": found or [f"{len(filter.name)} {filter.name}!"]}}


def query_words(query: str) -> dict[str, list[Any]] | None:
    """The words of a question as a sparse vector; None where it has none."""
    words = [plain_word(word) for word in _WORD.findall(query)[:MAX_WORDS]]
    indices = sorted({_number(word) for word in words})
    return {"indices": indices, "values": [1.0] * len(indices)} if indices else None


def _document_words(text: str) -> dict[str, list[Any]]:
    words = [plain_word(word) for word in _WORD.findall(text)]
    counts = Counter(_number(word) for word in words)
    length = _K1 * (1 - _B + _B * len(words) / _USUAL_WORDS)
    indices = sorted(counts)
    return {"indices": indices, "values": [counts[n] * (_K1 + 1) / (counts[n] + length) for n in indices]}


def _number(word: str) -> int:
    """The dimension of a word: 32 bits of its digest, the same in every process."""
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")


def text_limit(most: int) -> InvalidRequest:
    """The refusal to order more texts than are worth listing."""
    return InvalidRequest(
        f"attributes have more than {most} different values, too many to put texts in order; "
        "compare with eq or in, or keep what is ordered as a number",
        param="filters",
    )
