"""The official OpenAI client over files, uploads, vector stores and searches, on a real port."""

from __future__ import annotations

import hashlib
import io

import openai
import pytest
from tests.serving import served

DOCUMENTS = {
    "llamas.md": b"# Llamas\n\nLlamas live in the Andes. Their wool is soft and warm.\n",
    "banks.txt": b"The central bank sets the rate of interest every month.\n",
    "sea.html": b"<html><body><h1>The sea</h1><p>Whales sing under water.</p></body></html>",
}


@pytest.fixture(scope="module")
def client():
    with served() as server:
        yield openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0)


def test_files(client):
    expiry = {"anchor": "created_at", "seconds": 3600}
    file = client.files.create(file=("a.jsonl", b'{"a": 1}\n'), purpose="batch", expires_after=expiry)
    assert file.bytes == 9 and file.expires_at == pytest.approx(file.created_at + 3600, abs=1)
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == b'{"a": 1}\n'
    assert client.files.wait_for_processing(file.id).status == "processed"
    others = [client.files.create(file=(f"{n}.txt", b"x"), purpose="user_data").id for n in range(5)]
    listed = [found.id for found in client.files.list(purpose="user_data", limit=2, order="asc")]
    assert listed == others
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=b"x", purpose="to keep")
    for id in others:
        client.files.delete(id)


def test_uploads_in_parts(client):
    data = bytes(range(256)) * 1000
    done = client.uploads.upload_file_chunked(
        file=data, filename="big.bin", bytes=len(data), mime_type="text/plain", purpose="user_data",
        part_size=100_000, md5=hashlib.md5(data).hexdigest(),
    )  # fmt: skip
    assert done.status == "completed" and done.file.bytes == len(data)
    assert client.files.content(done.file.id).read() == data
    upload = client.uploads.create(bytes=3, filename="x.txt", mime_type="text/plain", purpose="user_data")
    part = client.uploads.parts.create(upload.id, data=b"abc")
    with pytest.raises(openai.BadRequestError, match="MD5"):
        client.uploads.complete(upload.id, part_ids=[part.id], md5="0" * 32)
    assert client.uploads.cancel(upload.id).status == "cancelled"


def test_vector_stores(client):
    store = client.vector_stores.create(name="knowledge", metadata={"team": "a"})
    batch = client.vector_stores.file_batches.upload_and_poll(
        store.id, files=[(name, io.BytesIO(data)) for name, data in DOCUMENTS.items()]
    )
    assert batch.status == "completed" and batch.file_counts.completed == 3
    broken = client.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=("x.pdf", io.BytesIO(b"%PDF-")))
    assert broken.status == "failed" and broken.last_error.code == "invalid_file"
    counts = client.vector_stores.retrieve(store.id).file_counts
    assert (counts.completed, counts.failed, counts.in_progress, counts.cancelled, counts.total) == (3, 1, 0, 0, 4)

    found = client.vector_stores.search(store.id, query="soft wool", max_num_results=2).data
    assert found[0].filename == "llamas.md" and "wool" in found[0].content[0].text
    start, end = found[0].span
    assert DOCUMENTS["llamas.md"].decode()[start:end] == found[0].content[0].text
    words = client.vector_stores.search(store.id, query=["whales", "interest"], extra_body={"search_mode": "keyword"})
    assert {result.filename for result in words.data} == {"sea.html", "banks.txt"}

    whales = next(result.file_id for result in words.data if result.filename == "sea.html")
    client.vector_stores.files.update(whales, vector_store_id=store.id, attributes={"topic": "sea", "year": 2024})
    both = {"type": "and", "filters": [{"type": "eq", "key": "topic", "value": "sea"},
                                       {"type": "gt", "key": "year", "value": 2000}]}  # fmt: skip
    only = client.vector_stores.search(store.id, query="anything", filters=both)
    assert [result.file_id for result in only.data] == [whales] and only.data[0].attributes["topic"] == "sea"
    text = client.vector_stores.files.content(whales, vector_store_id=store.id).data
    assert [piece.text for piece in text] == ["# The sea\n\nWhales sing under water."]

    listed = list(client.vector_stores.files.list(store.id, limit=1, filter="completed"))
    in_batch = list(client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id, limit=2))
    assert {file.id for file in listed} == {file.id for file in in_batch} and len(in_batch) == 3
    assert client.vector_stores.files.delete(whales, vector_store_id=store.id).deleted
    client.files.delete(found[0].file_id)
    left = client.vector_stores.search(store.id, query="soft wool whales interest").data
    assert {result.filename for result in left} == {"banks.txt"}

    renamed = client.vector_stores.update(
        store.id, name="wisdom", expires_after={"anchor": "last_active_at", "days": 7}
    )
    assert renamed.name == "wisdom" and renamed.metadata == {"team": "a"}
    assert renamed.expires_at == renamed.last_active_at + 7 * 86_400
    assert store.id in [found.id for found in client.vector_stores.list(limit=1)]
    assert client.vector_stores.delete(store.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.search(store.id, query="x")


def test_chunks_of_a_size_that_was_asked_for(client):
    text = " ".join(f"Sentence number {n} is here." for n in range(100)).encode()
    file = client.files.create(file=("long.txt", text), purpose="assistants")
    static = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 20}}
    store = client.vector_stores.create(file_ids=[file.id], chunking_strategy=static)
    attached = client.vector_stores.files.poll(file.id, vector_store_id=store.id)
    assert attached.status == "completed" and attached.chunking_strategy.static.max_chunk_size_tokens == 100
    chunks = client.vector_stores.files.content(file.id, vector_store_id=store.id).data
    assert (
        len(chunks) > 6 and chunks[0].text.startswith("Sentence number 0") and chunks[-1].text.endswith("99 is here.")
    )
