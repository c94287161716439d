"""Inference by any service that speaks OpenAI's wire: one adapter, and a row of data per vendor.

Built from a run config; nothing is sent before the first request. A model is asked for by the vendor's name, by an
alias of the config, or by its name in the catalog where the vendor's row knows it.
"""

from __future__ import annotations

import dataclasses
import time
from array import array
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Any
from urllib.parse import quote

from llamakit.api.inference import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Embeddings,
    Health,
    LoadedModel,
    ModelInfo,
    ModelStats,
    TokenizeRequest,
    TokenizerInfo,
    Tokens,
)
from llamakit.core.config import Duration, nearest
from llamakit.core.errors import InvalidRequest, UnknownModel
from llamakit.core.messages import AnswerEvent
from llamakit.hub import catalog
from llamakit.providers.remote.inference.settings import Settings, read_settings
from llamakit.providers.shared.openai_objects import bad_field, field_of, read_loaded, read_models, read_vectors
from llamakit.providers.shared.openai_reply import ReplyReader
from llamakit.providers.shared.openai_request import chat_body, completion_body, to_messages, to_tools
from llamakit.providers.shared.remote import Remote

LISTED_FOR_S = 15.0
"""Seconds that a list of models is believed."""


def build(config: Mapping[str, Any], needs: Mapping[Any, Any]) -> OpenAICompatInference:
    """The provider from its settings; raises `ConfigError` for what is unknown, missing or cannot be."""
    return OpenAICompatInference(read_settings(config))


class OpenAICompatInference:
    """Fulfils `Inference`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._vendor = settings.vendor
        self._remote = Remote(settings.remote)
        self._running: Counter[str] = Counter()
        self._listed: tuple[float, Sequence[ModelInfo]] | None = None

    async def chat(self, request: ChatRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Answer a conversation."""
        model = self._remote_name(request.model)
        streams = request.sampling.get("prompt_logprobs") is None
        body = chat_body(request, self._vendor, model, stream=streams)
        num_choices = request.sampling.get("n") or 1
        async with aclosing(self._answer(request.model, "/chat/completions", body, num_choices)) as events:
            async for event in events:
                yield event

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Continue a text or ids, or fill in before a suffix."""
        model, sampling = self._remote_name(request.model), request.sampling
        num_choices = sampling.get("n") or 1
        max_tokens = sampling.get("max_tokens")
        if max_tokens is None:
            max_tokens = await self._room(request)
        # What is known only at the end comes with whole answers.
        streams = sampling.get("prompt_logprobs") is None and (sampling.get("best_of") or 1) <= num_choices
        body = completion_body(request, self._vendor, model, stream=streams, max_tokens=max_tokens)
        async with aclosing(self._answer(request.model, "/completions", body, num_choices)) as events:
            async for event in events:
                yield event

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """One vector per input; texts and ids are asked for apart, as the wire wants them."""
        if "embeddings" not in self._vendor.takes:
            raise InvalidRequest(f"{self._vendor.title} gives no embeddings", param="model")
        vectors: dict[int, array[float]] = {}
        num_tokens = 0
        for kind in (str, tuple):
            places = [place for place, item in enumerate(request.inputs) if isinstance(item, kind)]
            if not places:
                continue
            inputs = [list(item) if isinstance(item, tuple) else item for item in (request.inputs[p] for p in places)]
            body: dict[str, Any] = {"model": self._remote_name(request.model), "input": inputs}
            body["encoding_format"] = "base64" if self._vendor.manages else "float"
            if request.dimensions is not None:
                body["dimensions"] = request.dimensions
            with self._at_work(request.model):
                made = await self._remote.post("/embeddings", body)
            found, counted = read_vectors(self._vendor.title, made, len(places))
            vectors |= zip(places, found, strict=True)
            num_tokens += counted
        return Embeddings(
            vectors=tuple(vectors[place] for place in range(len(request.inputs))), prompt_tokens=num_tokens
        )

    async def tokenize(self, request: TokenizeRequest) -> Tokens:
        """Token ids of a text or a conversation, where the service tells them."""
        self._need_tokens()
        body: dict[str, Any] = {"model": self._remote_name(request.model), "return_token_strs": True}
        if request.prompt is not None:
            body |= {"prompt": request.prompt, "add_special_tokens": request.add_special_tokens}
            body |= {"parse_special": True} if request.parse_special else {}
        else:
            body |= {
                "messages": to_messages(request.messages, self._vendor),
                "add_generation_prompt": request.add_generation_prompt,
                "continue_final_message": request.continue_final_message,
            }
            body |= {"tools": to_tools(request.tools)} if request.tools else {}
        made = await self._remote.post("/tokenize", body, at_root=True)
        ids, texts = self._field(made, "tokens", list), made.get("token_strs") or []
        if not all(isinstance(token, int) for token in ids) or not all(isinstance(text, str) for text in texts):
            raise bad_field(self._vendor.title, "tokens")
        return Tokens(ids=tuple(ids), texts=tuple(texts))

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        """Text of ids, where the service tells it."""
        self._need_tokens()
        body = {"model": self._remote_name(model), "tokens": list(ids)}
        return self._field(await self._remote.post("/detokenize", body, at_root=True), "prompt", str)

    async def tokenizer_info(self, model: str) -> TokenizerInfo:
        """Facts about a model's tokenizer, where the service is a llamakit server."""
        if self._vendor.tokens != "llamakit":
            raise InvalidRequest(f"{self._vendor.title} does not tell about its tokenizers", param="model")
        made = await self._remote.get(f"/tokenizer_info?model={quote(self._remote_name(model), safe='')}", at_root=True)
        bos = (made.get("bos_token_id"), made.get("bos_token"))
        ends = [(end.get("id"), end.get("content")) for end in self._field(made, "eos_tokens", list)]
        return TokenizerInfo(
            model=model,
            kind=self._field(made, "tokenizer_class", str),
            vocab_size=self._field(made, "vocab_size", int),
            context_length=self._field(made, "model_max_length", int),
            bos=None if None in bos else bos,
            eos=tuple(ends),
        )

    async def models(self) -> Sequence[ModelInfo]:
        """The configured models, or those the service lists."""
        settings = self._settings
        if settings.models or not self._vendor.lists_models:
            return [self._info(name) for name in dict.fromkeys((*settings.models, *settings.model_names))]
        listed = await self._list()
        return [*(self._info(alias) for alias in settings.model_names), *listed]

    async def model(self, name: str) -> ModelInfo:
        """One of them; raises `UnknownModel`. Where nothing lists them, every name counts."""
        remote = self._remote_name(name)
        if self._settings.models or not self._vendor.lists_models:
            return self._info(name)
        listed = {model.name: model for model in await self._list()}
        if remote not in listed:
            raise UnknownModel(f"{self._vendor.title} lists no model {remote!r}{nearest(remote, listed)}")
        return dataclasses.replace(listed[remote], name=name)

    async def loaded(self) -> Sequence[LoadedModel]:
        """The models in the service's memory, where it tells."""
        if not self._vendor.manages:
            return []
        made = await self._remote.get("/llamakit/ps")
        return [read_loaded(self._vendor.title, entry) for entry in self._field(made, "models", list)]

    async def load(self, model: str, keep_alive: Duration | None = None) -> LoadedModel:
        """Have the service load the model, where it can be told; elsewhere the first request does."""
        if not self._vendor.manages:
            remote = self._remote_name(model)
            return LoadedModel(name=model or remote, memory_bytes=0, context_length=0, device="remote")
        body: dict[str, Any] = {"model": self._remote_name(model)}
        if keep_alive is not None:
            body["keep_alive"] = float(keep_alive)
        return read_loaded(self._vendor.title, await self._remote.post("/llamakit/load", body))

    async def unload(self, model: str) -> bool:
        """Have the service let the model go, where it can be told."""
        if not self._vendor.manages:
            return False
        made = await self._remote.post("/llamakit/unload", {"model": self._remote_name(model)})
        return self._field(made, "unloaded", bool)

    def stats(self) -> Sequence[ModelStats]:
        """Requests in work, by model."""
        return [ModelStats(model=model, running=running) for model, running in self._running.items() if running]

    async def health(self) -> Health:
        """Ready until closed; whether the service answers shows with the first request."""
        closed = self._remote.is_closed
        return Health(ready=not closed, detail="closed" if closed else "")

    async def aclose(self) -> None:
        """Close every connection; streams still open raise `EngineStopped`."""
        await self._remote.aclose()

    async def _answer(
        self, model: str, path: str, body: Mapping[str, Any], num_choices: int
    ) -> AsyncGenerator[AnswerEvent, None]:
        reader = ReplyReader(self._vendor.title, num_choices=num_choices)
        with self._at_work(model):
            async with aclosing(self._remote.events(path, body)) as values:
                async for _, value in values:
                    for event in reader.read(value):
                        yield event
        for event in reader.end():
            yield event

    @contextmanager
    def _at_work(self, model: str):
        self._running[model] += 1
        try:
            yield
        finally:
            self._running[model] -= 1
            if not self._running[model]:
                del self._running[model]

    async def _room(self, request: CompletionRequest) -> int:
        """Tokens that the context leaves; the configured number where the service does not count."""
        if self._vendor.tokens is None:
            return self._settings.max_tokens
        if not isinstance(request.prompt, str):
            if self._vendor.tokens != "llamakit":
                return self._settings.max_tokens
            context = (await self.tokenizer_info(request.model)).context_length
            return max(1, context - len(request.prompt))
        body: dict[str, Any] = {"model": self._remote_name(request.model), "prompt": request.prompt}
        body["add_special_tokens"] = request.add_special_tokens
        made = await self._remote.post("/tokenize", body, at_root=True)
        return max(1, self._field(made, "max_model_len", int) - self._field(made, "count", int))

    def _remote_name(self, model: str) -> str:
        """What the service calls the model; raises `UnknownModel` for one that is not served."""
        settings = self._settings
        if settings.models and model not in settings.models and model not in settings.model_names:
            served = (*settings.models, *settings.model_names)
            raise UnknownModel(f"no model {model!r} is served{nearest(model, served)}. Served: {', '.join(served)}")
        if model in settings.model_names:
            return settings.model_names[model]
        known = catalog.find(model)
        return model if known is None else self._vendor.names.get(known.name, model)

    async def _list(self) -> Sequence[ModelInfo]:
        now = time.monotonic()
        if self._listed is None or now - self._listed[0] > LISTED_FOR_S:
            made = await self._remote.get("/models")
            self._listed = (now, read_models(self._vendor.title, made, owner=self._vendor.name))
        return self._listed[1]

    def _info(self, name: str) -> ModelInfo:
        return ModelInfo(name=name, owned_by=self._vendor.name)

    def _need_tokens(self) -> None:
        if self._vendor.tokens is None:
            raise InvalidRequest(f"{self._vendor.title} tells no token ids", param="model")

    def _field(self, value: Any, name: str, kind: type) -> Any:
        return field_of(self._vendor.title, value, name, kind)
