"""Texts to vectors, by whatever is passed in: an engine, a served model, a test's arithmetic.

Here vectors are checked and brought to length one, so that a dot product is the cosine everywhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from llamakit.core.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

# numpy is loaded with the first vector: many servers never see one.
Vectors: TypeAlias = "NDArray[np.float32]"
"""[N, D], each row of length one (or all zero)."""

Purpose = Literal["document", "query"]
"""Some models embed a question otherwise than the text that answers it."""

MAX_DIMENSION = 16_384


class Embedder(Protocol):
    """Makes vectors of texts."""

    @property
    def name(self) -> str:
        """The model; a collection remembers it, because vectors of two models do not compare."""
        ...

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        ...

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> Vectors:
        """One normalised row a text, in order."""
        ...


class CallableEmbedder:
    """An embedder out of a coroutine function that takes a batch of texts."""

    def __init__(
        self,
        name: str,
        dimension: int,
        call: Callable[[Sequence[str], Purpose], Awaitable[ArrayLike]],
        *,
        batch: int = 64,
    ) -> None:
        self.name = name
        self.dimension = dimension
        self._call = call
        self._batch = batch

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> Vectors:
        """One normalised row a text; long lists go in batches, one after the other."""
        import numpy as np

        rows = [np.empty((0, self.dimension), np.float32)]
        for start in range(0, len(texts), self._batch):
            batch = texts[start : start + self._batch]
            rows.append(normalized(await self._call(batch, purpose), len(batch), self.dimension))
        return np.concatenate(rows)


def normalized(values: ArrayLike, count: int, dimension: int) -> Vectors:
    """The rows at length one; `InvalidRequest` for another shape or for what is not a number."""
    import numpy as np

    try:
        vectors = np.array(values, dtype=np.float32, ndmin=2)
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"embeddings are lists of {dimension} numbers: {error}", param="embedding") from error
    if count == 0:
        return np.empty((0, dimension), np.float32)
    if vectors.shape != (count, dimension):
        raise InvalidRequest(
            f"{count} embeddings of {dimension} numbers were wanted, got shape {vectors.shape}", param="embedding"
        )
    if not np.isfinite(vectors).all():
        raise InvalidRequest("an embedding holds NaN or infinity", param="embedding")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
