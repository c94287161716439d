"""Llama Stack's RAG tool on the wire: documents to be cut and kept, and what a question finds as text for a model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from llamakit.api.llama_stack_content import (
    CONTENT_FORM,
    LlamaStackContent,
    LlamaStackImageItem,
    LlamaStackItems,
    LlamaStackTextItem,
    LlamaStackUrl,
)
from llamakit.api.llama_stack_vector_io import DbId, SearchMode
from llamakit.api.wire import FIRST, LIST, TEXT, Wire
from llamakit.core.errors import InvalidRequest

MAX_DOCUMENTS = 100
MAX_STORES = 10
DEFAULT_TEMPLATE = "Result {index}\nContent: {chunk.content}\nMetadata: {metadata}\n"
_PLACE = re.compile(r"\{(index|chunk\.content|metadata)\}")


class LlamaStackDocument(Wire):
    """A document that goes into a database."""

    document_id: Annotated[str, Field(min_length=1, max_length=100)]
    content: Annotated[
        Annotated[str, TEXT]
        | Annotated[LlamaStackItems, LIST]
        | Annotated[LlamaStackTextItem | LlamaStackImageItem | LlamaStackUrl, Tag("<item>")],
        CONTENT_FORM,
    ]
    """Text, or a data URL of a file; addresses are not fetched."""
    mime_type: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class LlamaStackRagInsert(Wire):
    """Body of `POST /v1/tool-runtime/rag-tool/insert`."""

    documents: Annotated[list[LlamaStackDocument], FIRST, Field(min_length=1, max_length=MAX_DOCUMENTS)]
    vector_db_id: DbId
    chunk_size_in_tokens: Annotated[int, Field(ge=16, le=8192)] = 512
    """A quarter of a chunk repeats the end of the one before."""


class LlamaStackPlainQuery(Wire):
    """The question as it stands."""

    type: Literal["default"]
    separator: str = " "
    """Stands between the texts of a question that has several."""


class LlamaStackModelQuery(Wire):
    """A question that a model writes; refused, as its template would be the client's own code."""

    type: Literal["llm"]
    model: str
    template: str


class LlamaStackRrf(Wire):
    """Ranks added up."""

    type: Literal["rrf"]
    impact_factor: Annotated[float, Field(gt=0, le=1e6)] = 60.0


class LlamaStackWeighted(Wire):
    """Scores added up."""

    type: Literal["weighted"]
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The share of the vectors."""


class LlamaStackRagConfig(Wire):
    """How a question is answered from databases."""

    query_generator_config: (
        Annotated[LlamaStackPlainQuery | LlamaStackModelQuery, Field(discriminator="type")] | None
    ) = None
    max_tokens_in_context: Annotated[int, Field(ge=1, lt=2**31)] = 4096
    """The text that is found ends before this many tokens."""
    max_chunks: Annotated[int, Field(ge=1, le=50)] = 5
    chunk_template: Annotated[str, Field(max_length=16_384)] = DEFAULT_TEMPLATE
    """Text of one chunk; `{index}`, `{chunk.content}` and `{metadata}` are filled in, and nothing else is."""
    mode: SearchMode | None = None
    """By meaning (default), by words, or both."""
    ranker: Annotated[LlamaStackRrf | LlamaStackWeighted, Field(discriminator="type")] | None = None


class LlamaStackRagQuery(Wire):
    """Body of `POST /v1/tool-runtime/rag-tool/query`."""

    content: LlamaStackContent
    vector_db_ids: Annotated[list[DbId], FIRST, Field(min_length=1, max_length=MAX_STORES)]
    query_config: LlamaStackRagConfig | None = None


class LlamaStackRagResult(Wire):
    """What was found, as text for a model."""

    content: LlamaStackItems | None
    """Null where nothing was found."""
    metadata: dict[str, Any]
    """`document_ids`, `chunks`, `scores` and `vector_db_ids` of what was found, in its order."""


def separator_of(config: LlamaStackRagConfig) -> str:
    """What stands between the texts of a question; raises `InvalidRequest` for one that a model shall write."""
    generator = config.query_generator_config
    if isinstance(generator, LlamaStackModelQuery):
        raise InvalidRequest(
            "query_config.query_generator_config.type: templates of a client are not run here; write the question "
            "with a chat completion and send it as it is",
            param="query_config.query_generator_config.type",
        )
    return " " if generator is None else generator.separator


def fill(template: str, index: int, text: str, metadata: Mapping[str, Any]) -> str:
    """The template with its three places filled in, in one pass: what is filled in is not looked at again."""
    values = {"index": str(index), "chunk.content": text, "metadata": str(dict(metadata))}
    return _PLACE.sub(lambda place: values[place[1]], template)


def result_body(
    query: str, texts: Sequence[str], chunks: Sequence[Mapping[str, Any]], scores: Sequence[float], dbs: Sequence[str]
) -> dict[str, Any]:
    """The wire form of what was found; `texts` are the chunks as the template spells them."""
    metadata = {
        "document_ids": [chunk["metadata"]["document_id"] for chunk in chunks],
        "chunks": [chunk["content"] for chunk in chunks],
        "scores": list(scores),
        "vector_db_ids": list(dbs),
    }
    if not texts:
        return {"content": None, "metadata": metadata}
    noun = "result" if len(texts) == 1 else "results"
    lines = [
        f"{len(texts)} {noun} of a search of the knowledge base follow.\n",
        *texts,
        f"End of the results. They are there to help to answer: {query!r}. Where they do not, say so.\n",
    ]
    return {"content": [{"type": "text", "text": line} for line in lines], "metadata": metadata}
