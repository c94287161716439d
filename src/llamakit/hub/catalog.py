"""Every Llama that was released as open weights: what it is, what it is called, what may be done with it.

A model's own name is `family:size-variant`; `aliases` adds the short forms people know (`llama3.2`,
`llama3.2:1b`), Meta's descriptors and the hub's repository ids. Knows no disk and no network.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cache

from llamakit.core.model_config import ModelConfig
from llamakit.hub import releases, sources
from llamakit.hub.hashes import known_sha256
from llamakit.hub.licences import LICENCES, Licence
from llamakit.hub.releases import Kind
from llamakit.hub.shapes import SHAPES

# What each prompt format lets a model do beyond answering text.
_TOOLS = frozenset({"llama3.1", "llama3.2", "llama3.3"})
_CONTEXT = {"vision": 131072, "classifier": 512}


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """One released set of weights."""

    name: str
    """Our name, unique: `llama3.2:1b-instruct`."""
    title: str
    kind: Kind
    config: ModelConfig | None
    """Shape of a text model; None for vision models and classifiers."""
    prompt_format: str | None
    """Name of the prompt format in `text.formats`."""
    licence: Licence
    released: date
    languages: tuple[str, ...]
    context_length: int
    num_parameters: int | None
    descriptors: tuple[str, ...]
    """What Meta's own download tool calls it; the first is the usual one."""
    official: str | None
    """Repository by the maker."""
    mirrors: tuple[str, ...]
    """Repositories of the same weights that ask for nothing."""
    gguf: str | None
    """Repository of GGUF files."""
    not_yet: str | None
    """Why it cannot run here yet; None for what runs."""

    @property
    def family(self) -> str:
        """`llama3.2` of `llama3.2:1b-instruct`."""
        return self.name.partition(":")[0]

    @property
    def size(self) -> str:
        """`1b` of `llama3.2:1b-instruct`."""
        return self.name.partition(":")[2].partition("-")[0]

    @property
    def repos(self) -> tuple[str, ...]:
        """Repositories of the full weights, the one to try first at the front."""
        return (*((self.official,) if self.official else ()), *sources.FORMER.get(self.name, ()), *self.mirrors)

    @property
    def original_repo(self) -> str | None:
        """Repository that holds Meta's own `.pth` files."""
        if self.official is None or self.family == "codellama":
            return None
        return self.official.removesuffix("-hf")

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What it can do, in words."""
        if self.kind in ("vision", "classifier"):
            return (self.kind,)
        can = ["completion"] if self.kind == "base" else ["judge"] if self.kind == "guard" else ["chat"]
        if self.prompt_format in _TOOLS:
            can.append("tools")
        # Only the 7B and 13B of Code Llama saw the infilling task, and their Python variants did not.
        if self.family == "codellama" and self.size in ("7b", "13b") and "python" not in self.name:
            can.append("infill")
        return tuple(can)

    def sha256(self, file: str) -> str | None:
        """Known digest of a file of this model."""
        return known_sha256(self.name, self.family, file)


@cache
def models() -> tuple[Model, ...]:
    """The whole catalog, oldest release first."""
    return tuple(_model(*row) for row in releases.MODELS)


@cache
def aliases() -> dict[str, Model]:
    """Every way to say a model, in lower case."""
    table: dict[str, Model] = {}
    for model in models():
        for alias in spellings(model):
            table.setdefault(alias.lower(), model)
    return table


def find(name: str) -> Model | None:
    """The model that `name` says exactly, but for the case of letters."""
    return aliases().get(name.strip().lower())


def spellings(model: Model) -> tuple[str, ...]:
    """All names of one model, its own first, short forms next."""
    names = [model.name]
    variant = model.name.partition(":")[2].partition("-")[2]
    if variant == "base" and model.family in ("llama2", "codellama", "llama3", "llama3.1", "llama3.2"):
        names.append(f"{model.family}:{model.size}-{'code' if model.family == 'codellama' else 'text'}")
    if _is_usual(model, variant):
        names.append(f"{model.family}:{model.size}")
        if model.size == _family_row(model.name)[5]:
            names += [f"{model.family}:latest", model.family]
    names += [*model.descriptors, *model.repos, *((model.gguf,) if model.gguf else ())]
    names += [repo.partition("/")[2] for repo in model.repos if repo.startswith(("meta-llama/", "codellama/"))]
    return tuple(dict.fromkeys(names))


def _is_usual(model: Model, variant: str) -> bool:
    """Whether `family:size` means this model: the chat variant where there is one."""
    return variant in ("instruct", "chat", "") or (model.family == "llama1" and variant == "base")


def _family_row(name: str) -> tuple[str, str, str, date, tuple[str, ...], str]:
    family = name.partition(":")[0]
    rows = [row for row in releases.FAMILIES if family == row[0] or (":" in row[0] and name.startswith(row[0]))]
    return max(rows, key=lambda row: len(row[0]))


def _model(name: str, kind: Kind, shape: str | None, prompt_format: str | None) -> Model:
    _, title, licence, released, languages, _ = _family_row(name)
    config = SHAPES[shape] if shape else None
    tag = name.partition(":")[2].split("-")
    words = " ".join(word.upper() if word[0].isdigit() else word.capitalize() for word in tag if word != "base")
    return Model(
        name=name,
        title=f"{title} {words}",
        kind=kind,
        config=config,
        prompt_format=prompt_format,
        licence=LICENCES[licence],
        released=releases.RELEASED.get(name, released),
        languages=languages,
        context_length=config.context_length if config else _CONTEXT[kind],
        num_parameters=config.num_parameters if config else releases.PARAMETERS.get(name),
        descriptors=sources.DESCRIPTORS.get(name, ()),
        official=sources.OFFICIAL.get(name),
        mirrors=(sources.MIRRORS[name],) if name in sources.MIRRORS else (),
        gguf=sources.GGUF.get(name),
        not_yet=releases.NOT_YET.get(name),
    )
