"""What else OpenAI lets a chat ask for and an answer carry: described, so that clients and their types agree with ours.

Each is refused, or named as set aside, where `openai_chat.py` says so; none changes an answer here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llamakit.api.openai_messages import TextOnly
from llamakit.api.wire import FIRST, Wire


class ChatVoice(Wire):
    """A voice of one's own."""

    id: str


class ChatAudioOptions(Wire):
    """How an answer would be spoken."""

    format: Literal["wav", "aac", "mp3", "flac", "opus", "pcm16"]
    voice: str | ChatVoice


class ChatModerationSide(Wire):
    """What becomes of what is found on one side."""

    mode: Literal["score", "block"]


class ChatModerationPolicy(Wire):
    """What becomes of what is found."""

    input: ChatModerationSide | None = None
    output: ChatModerationSide | None = None


class ChatModerationOptions(Wire):
    """Moderation along with the answer."""

    model: str
    policy: ChatModerationPolicy | None = None


class ChatPrediction(Wire):
    """Text that the answer will mostly repeat."""

    type: Literal["content"]
    content: TextOnly


class PromptCacheOptions(Wire):
    """Where a prompt's prefix is cut for the cache, and how long it stays."""

    mode: Literal["implicit", "explicit"] | None = None
    ttl: Literal["30m"] | None = None


class ApproximatePlace(Wire):
    """About where somebody is."""

    city: str | None = None
    country: str | None = None
    region: str | None = None
    timezone: str | None = None


class ChatUserLocation(Wire):
    """Where the user of a search is."""

    type: Literal["approximate"]
    approximate: ApproximatePlace


class ChatSearchOptions(Wire):
    """How the web would be searched."""

    search_context_size: Literal["low", "medium", "high"] | None = None
    user_location: ChatUserLocation | None = None


class ChatUrlCitation(Wire):
    """A page that a stretch of the answer rests on."""

    url: str
    title: str
    start_index: int
    end_index: int


class ChatAnnotation(Wire):
    """Something said about a stretch of the answer."""

    type: Literal["url_citation"]
    url_citation: ChatUrlCitation


class ChatAudio(Wire):
    """A spoken answer."""

    id: str
    data: str
    expires_at: int
    transcript: str


class ChatModerationResult(Wire):
    """What one model found in one input."""

    type: Literal["moderation_result"]
    model: str
    flagged: bool
    categories: dict[str, bool]
    category_applied_input_types: dict[str, list[Literal["text", "image"]]]
    category_scores: dict[str, float]


class ChatModerationResults(Wire):
    """What was found."""

    type: Literal["moderation_results"]
    model: str
    results: Annotated[list[ChatModerationResult], FIRST]


class ChatModerationFault(Wire):
    """Why nothing can be said."""

    type: Literal["error"]
    code: str
    message: str


ChatModerationFinding = Annotated[ChatModerationResults | ChatModerationFault, Field(discriminator="type")]


class ChatModeration(Wire):
    """What was found in the question and in the answer."""

    input: ChatModerationFinding
    output: ChatModerationFinding


class CalledCustomTool(Wire):
    """A free-form tool's name and the text it is given."""

    name: str
    input: str
