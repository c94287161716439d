"""Metrics of a run as JSON lines: one object per report, appended and flushed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llamakit.training.loop import Report


class MetricsFile:
    """`metrics.jsonl` of a run directory."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - lives as long as the run

    def write(self, record: Report | Mapping[str, Any]) -> None:
        """Append one record."""
        self._file.write(json.dumps(asdict(record) if isinstance(record, Report) else dict(record)) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
