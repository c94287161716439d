"""Llama Stack's datasets on the wire: where rows come from, and stretches of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.data_url import read_data_url
from llamakit.api.wire import FIRST, Wire
from llamakit.core.errors import InvalidRequest

MAX_ROWS = 100_000
"""Of one dataset."""
Purpose = Literal["post-training/messages", "eval/question-answer", "eval/messages-answer"]
COLUMNS: dict[str, tuple[str, ...]] = {
    "post-training/messages": ("messages",),
    "eval/question-answer": (),
    "eval/messages-answer": ("messages", "answer"),
}
"""What rows of a purpose must have; the columns of questions and answers have many names in the wild."""


class LlamaStackRows(Wire):
    """Rows that come with the request."""

    type: Literal["rows"]
    rows: Annotated[list[dict[str, Any]], FIRST]


class LlamaStackUri(Wire):
    """Rows in a data URL (JSON, JSON lines or CSV), or in a file of this server (`file://FILE_ID`)."""

    type: Literal["uri"]
    uri: str


LlamaStackSource = Annotated[LlamaStackRows | LlamaStackUri, Field(discriminator="type")]


class LlamaStackDatasetRequest(Wire):
    """Body of `POST /v1/datasets`."""

    purpose: Purpose
    source: LlamaStackSource
    metadata: dict[str, Any] | None = None
    dataset_id: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """A name; one is made up when left out."""


class LlamaStackAppendRequest(Wire):
    """Body of `POST /v1/datasetio/append-rows/{dataset_id}`."""

    rows: Annotated[list[dict[str, Any]], FIRST]


class LlamaStackDataset(Wire):
    """A dataset."""

    identifier: str
    provider_resource_id: str | None = None
    provider_id: str
    type: Literal["dataset"]
    purpose: Purpose
    source: LlamaStackSource
    metadata: dict[str, Any]


class LlamaStackDatasets(Wire):
    """Every dataset."""

    data: Annotated[list[LlamaStackDataset], FIRST]


def rows_of_url(uri: str) -> list[dict[str, Any]]:
    """The rows in a data URL; raises `InvalidRequest`."""
    mime, data = read_data_url(uri, "source.uri")
    return rows_of(data, "csv" if "csv" in mime else "json", "source.uri")


def rows_of(data: bytes, kind: Literal["csv", "json"], param: str) -> list[dict[str, Any]]:
    """The rows of a CSV file with a header, a JSON array, or JSON lines; raises `InvalidRequest`."""
    try:
        text = data.decode("utf-8-sig")
        if kind == "csv":
            rows: Any = [dict(row) for row in csv.DictReader(io.StringIO(text, newline=""), strict=True)]
        elif text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (UnicodeDecodeError, ValueError, csv.Error, RecursionError) as fault:
        raise InvalidRequest(f"{param} holds no rows: {fault}", param=param) from None
    if not isinstance(rows, list) or any(not isinstance(row, dict) or None in row for row in rows):
        raise InvalidRequest(f"{param} must hold rows: objects with a name for every value", param=param)
    return rows


def check_rows(rows: Sequence[Mapping[str, Any]], purpose: str, have: int, param: str) -> None:
    """Raise `InvalidRequest` for rows that their purpose does not know, or for too many."""
    if have + len(rows) > MAX_ROWS:
        raise InvalidRequest(f"a dataset has at most {MAX_ROWS} rows, got {have + len(rows)}", param=param)
    for index, row in enumerate(rows):
        for column in COLUMNS[purpose]:
            if column not in row:
                raise InvalidRequest(
                    f"{param}[{index}] has no {column}, which rows of {purpose} have", param=f"{param}[{index}]"
                )


def dataset_body(id: str, purpose: str, source: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset."""
    return {
        "identifier": id,
        "provider_resource_id": id,
        "provider_id": "storage",
        "type": "dataset",
        "purpose": purpose,
        "source": dict(source),
        "metadata": dict(metadata),
    }
