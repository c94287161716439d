"""Approximate search over many vectors: a graph (HNSW, by FAISS, extra `faiss`) beside the file of exact rows.

The rows stay the truth and the graph can be lost: it is grown from them when it is behind, and kept in a file of its
own so that a start need not grow it anew. Few rows, and filters that leave few, are searched exactly.
Method: Malkov and Yashunin, 2016.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from llamakit.core.errors import MissingExtra
from llamakit.rag.embed import Vectors
from llamakit.rag.vector.flat import FlatVectors, Slots
from llamakit.storage.blobs import publish

EXACT_BELOW = 20_000
"""Rows that exact search takes at once: about 2 ms at 384 numbers a row."""
LINKS = 32
"""Neighbours of a row in the graph."""
GROW_WIDTH, SEARCH_WIDTH = 80, 128
"""Candidates that are looked at while a row is put in, and while one is looked for."""
SUFFIX = ".hnsw"
_SELECTIVE = 0.1
"""Filters that leave a smaller share make the graph useless."""
_SAVE_SHARE = 0.1
"""The graph is written when so much of it is new."""


class HnswVectors(FlatVectors):
    """Rows in a flat file, searched through a graph where they are many."""

    def __init__(self, path: Path, dimension: int) -> None:
        try:
            import faiss
        except ImportError as error:
            raise MissingExtra("this provider needs FAISS: pip install 'llamakit[faiss]'") from error
        super().__init__(path, dimension)
        self._faiss: Any = faiss
        self._graph: Any = None
        self._saved = 0
        self._growing = threading.Lock()
        for graph in path.parent.glob(f"*{SUFFIX}"):
            if not graph.with_name(graph.name.removesuffix(SUFFIX)).exists():
                graph.unlink(missing_ok=True)  # its rows were compacted into another file

    @property
    def graph_path(self) -> Path:
        """Where the graph is kept."""
        return self.path.with_name(f"{self.path.name}{SUFFIX}")

    def search(self, query: Vectors, k: int, slots: Slots) -> list[tuple[int, float]]:
        """The `k` slots of about the highest dot product; exact where that is quick."""
        if len(slots) < EXACT_BELOW or len(slots) < _SELECTIVE * (int(slots[-1]) + 1) or k <= 0:
            return super().search(query, k, slots)
        graph = self._grown(int(slots[-1]) + 1)
        bits = np.zeros(graph.ntotal, np.uint8)
        bits[slots] = 1
        allowed = self._faiss.IDSelectorBitmap(np.packbits(bits, bitorder="little"))
        width = max(SEARCH_WIDTH, 2 * k)
        parameters = self._faiss.SearchParametersHNSW(sel=allowed, efSearch=width)
        scores, found = graph.search(query.reshape(1, -1).astype(np.float32), k, params=parameters)
        return [(int(slot), float(score)) for slot, score in zip(found[0], scores[0], strict=True) if slot >= 0]

    def _grown(self, needed: int) -> Any:
        """The graph with at least `needed` rows in it."""
        with self._growing:
            if self._graph is None:
                self._graph = self._read()
                self._saved = self._graph.ntotal
            graph = self._graph
            if graph.ntotal < needed:
                graph.add(self.rows(np.arange(graph.ntotal, needed, dtype=np.int64)))
            if graph.ntotal - self._saved > _SAVE_SHARE * graph.ntotal:
                publish(self.graph_path, lambda path: self._faiss.write_index(graph, str(path)))
                self._saved = graph.ntotal
            return graph

    def _read(self) -> Any:
        """The graph as it was kept, if it fits the rows; else an empty one."""
        if self.graph_path.is_file():
            try:
                graph = self._faiss.read_index(str(self.graph_path))
                if graph.d == self.dimension and graph.ntotal <= self.count():
                    return graph
            except RuntimeError:
                pass  # damaged; it is grown anew from the rows
        graph = self._faiss.IndexHNSWFlat(self.dimension, LINKS, self._faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = GROW_WIDTH
        return graph
