"""Pages of text to chunks: at most so many tokens each, cut where the text itself pauses.

A page is taken apart into pieces (paragraphs, then lines, sentences, words) none of which is too
large, and pieces are put together again until a chunk is full. A new section starts a new chunk
once the last has some weight. Every chunk says where it stood; nothing of the text is left out.
Counting tokens is passed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from llamakit.core.errors import InvalidRequest
from llamakit.rag.parse import Page

CountTokens = Callable[[str], int]

# From the widest pause to the narrowest; each pattern matches the text up to and with the pause.
_PAUSES = (
    re.compile(r".+?(?:\n[ \t]*\n\s*|\Z)", re.DOTALL),
    re.compile(r".+?(?:\n|\Z)", re.DOTALL),
    re.compile(r".+?(?:[.!?。！？…]+[\"')\]]*\s+|\Z)", re.DOTALL),
    re.compile(r"\s*\S+\s*"),
)
_HEADING = re.compile(r"(#{1,6})[ \t]+(\S.*)")
_SECTION_SHARE = 0.25
"""A heading ends the chunk before it once that holds this share of the most it may."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkSettings:
    """How large chunks are; the defaults are those of OpenAI's vector stores."""

    max_tokens: int = 800
    overlap_tokens: int = 400
    """Tokens of the last chunk that the next one repeats."""
    by_structure: bool = True
    """Whether headings start new chunks; False cuts by tokens alone."""

    def __post_init__(self) -> None:
        if not 16 <= self.max_tokens <= 8192:
            raise InvalidRequest(f"max_chunk_size_tokens must be in [16, 8192], got {self.max_tokens}",
                                 param="chunking_strategy")  # fmt: skip
        if not 0 <= self.overlap_tokens <= self.max_tokens // 2:
            raise InvalidRequest(
                f"chunk_overlap_tokens is at most half the chunk, {self.max_tokens // 2}, got {self.overlap_tokens}",
                param="chunking_strategy",
            )


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document and where it stood."""

    text: str
    page: int | None
    """Number of its page; None where the document has none."""
    start: int
    """First character, counted within the page."""
    end: int
    tokens: int
    headings: tuple[str, ...] = ()
    """The headings it stands under, outermost first."""


@dataclass(slots=True)
class _Piece:
    start: int
    end: int
    tokens: int
    is_blank: bool
    opens_section: bool
    headings: tuple[str, ...]


@dataclass(slots=True)
class _Outline:
    """The headings in force, as Markdown writes them; a `#` in a fenced block is none."""

    _open: dict[int, str] = field(default_factory=dict)
    _fenced: bool = False

    def pass_over(self, text: str) -> bool:
        """Go past a stretch of text; whether it opens with a heading."""
        heading = None if self._fenced else _HEADING.match(text)
        if text.count("```") % 2:
            self._fenced = not self._fenced
        if heading is None:
            return False
        level = len(heading.group(1))
        kept = {depth: name for depth, name in self._open.items() if depth < level}
        self._open = kept | {level: heading.group(2).strip()[:200]}
        return True

    def path(self) -> tuple[str, ...]:
        """Outermost first."""
        return tuple(self._open[depth] for depth in sorted(self._open))


def chunk(
    pages: Sequence[Page], count: CountTokens, settings: ChunkSettings | None = None, *, headings: bool = True
) -> list[Chunk]:
    """The chunks of a document, in order. `headings=False` for text in which a `#` means something else, like code."""
    settings = settings or ChunkSettings()
    outline = _Outline() if headings else None
    return [made for page in pages for made in _chunk_page(page, count, settings, outline)]


def _chunk_page(page: Page, count: CountTokens, settings: ChunkSettings, outline: _Outline | None) -> Iterator[Chunk]:
    limit = settings.max_tokens
    held: list[_Piece] = []
    total = 0  # tokens of the held pieces
    fresh = False  # whether they say something that no chunk has yet
    for piece in _pieces(page.text, count, limit, outline):
        ends_section = piece.opens_section and settings.by_structure and total >= _SECTION_SHARE * limit
        if ends_section or total + piece.tokens > limit:
            if fresh:
                yield from _made(page, held, count, limit)
            held = [] if ends_section else _tail(held, min(settings.overlap_tokens, limit - piece.tokens))
            total = sum(part.tokens for part in held)
            fresh = False
        if held or not piece.is_blank:  # so the first one held never is
            held.append(piece)
            total += piece.tokens
            fresh = fresh or not piece.is_blank
    if fresh:
        yield from _made(page, held, count, limit)


def _tail(held: Sequence[_Piece], room: int) -> list[_Piece]:
    """The last pieces that fit into `room` tokens, to be repeated; never all of them."""
    kept: list[_Piece] = []
    for piece in reversed(held[1:]):
        room -= piece.tokens
        if room < 0:
            break
        kept.insert(0, piece)
    while kept and kept[0].is_blank:
        kept.pop(0)
    return kept


def _made(page: Page, held: Sequence[_Piece], count: CountTokens, limit: int) -> Iterator[Chunk]:
    """The chunk of some pieces; two, where they hold more tokens together than one by one."""
    start, end = held[0].start, held[-1].end
    text = page.text[start:end].rstrip()
    start += len(text) - len(text.lstrip())
    text = text.lstrip()
    if not text:
        return
    tokens = count(text)
    if tokens > limit and len(held) > 1:
        half = len(held) // 2
        yield from _made(page, held[:half], count, limit)
        yield from _made(page, held[half:], count, limit)
        return
    yield Chunk(text, page.number, start, start + len(text), tokens, held[0].headings)


def _pieces(text: str, count: CountTokens, limit: int, outline: _Outline | None) -> Iterator[_Piece]:
    """Consecutive stretches that together are the text, none above the limit."""
    for start, end, tokens in _split(text, 0, len(text), 0, count, limit):
        stretch = text[start:end]
        opens = outline is not None and outline.pass_over(stretch)
        path = outline.path() if outline is not None else ()
        yield _Piece(start, end, tokens, not stretch.strip(), opens, path)


def _split(
    text: str, start: int, end: int, depth: int, count: CountTokens, limit: int
) -> Iterator[tuple[int, int, int]]:
    """Spans with their tokens, cut at ever narrower pauses until each fits."""
    if depth == len(_PAUSES):
        middle = (start + end) // 2
        spans = [(start, middle), (middle, end)] if end - start > 1 else []
    else:
        spans = [found.span() for found in _PAUSES[depth].finditer(text, start, end)]
    for low, high in spans:
        tokens = count(text[low:high])
        if tokens <= limit or high - low == 1:
            yield low, high, tokens
        else:
            yield from _split(text, low, high, min(depth + 1, len(_PAUSES)), count, limit)
