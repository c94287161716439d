from __future__ import annotations

import threading

import pytest
import torch

from llamakit.kernels import native
from llamakit.kernels.large_pages import _stretches, are_granted, settle

BYTES = 24 << 20
pytestmark = pytest.mark.skipif(native.library() is None or not are_granted(), reason="no kernels or no large pages")


def values(seed: int, count: int = BYTES // 4) -> torch.Tensor:
    return torch.randint(
        -(2**31), 2**31 - 1, (count,), dtype=torch.int32, generator=torch.Generator().manual_seed(seed)
    )


def test_what_is_moved_stays_what_and_where_it_was():
    for offset in (0, 1, 4097):
        memory = values(1)
        own = memory[offset:]
        before, address = own.clone(), own.data_ptr()
        thread = settle([own])
        assert thread is not None
        thread.join()
        assert own.data_ptr() == address and torch.equal(own, before)


def test_readers_see_the_same_all_the_while():
    memory = values(2)
    expected = int(memory.sum(dtype=torch.int64))
    wrong: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            found = int(memory.sum(dtype=torch.int64))
            if found != expected:
                wrong.append(found)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        thread = settle([memory])
        assert thread is not None
        thread.join()
    stop.set()
    reader.join()
    assert not wrong


def test_the_library_says_how_much_it_moved():
    library = native.library()
    assert library is not None
    memory = values(3)
    assert library.settle(memory.data_ptr(), 1 << 20) == 0
    assert BYTES - (4 << 20) <= library.settle(memory.data_ptr(), BYTES) <= BYTES


def test_small_and_foreign_memory_is_left_alone():
    assert settle([]) is None and settle([torch.zeros(10)]) is None
    assert settle([torch.zeros(4, 4, device="meta")]) is None


def test_neighbours_in_a_file_are_one_stretch():
    file = values(4)
    first, second, third = file[:1000], file[1000:2000], file[4000:5000]
    start = file.data_ptr()
    assert _stretches([third, second, first]) == [(start, start + 8000), (start + 16000, start + 20000)]
