"""Files of `torch.save` that hold a flat dict of tensors: which tensor lies where, without running the pickle."""

from __future__ import annotations

from pathlib import Path

from llamakit.checkpoints.restricted_pickle import TensorRef, read_pickle
from llamakit.checkpoints.stored import BYTES, PLAIN, StoredTensor
from llamakit.checkpoints.torch_zip import Member, open_archive, read_member

_MAX_NAME = 100
_TIED = {"output.weight", "tok_embeddings.weight"}


class TorchFile:
    """An open torch.save file of a flat dict of tensors; `tensors` maps names to places in it."""

    def __init__(self, path: Path) -> None:
        self._file, members = open_archive(path)
        try:
            raw = read_member(self._file, members["data.pkl"], "data.pkl")
            self.tensors = {
                name: self._place(name, reference, members) for name, reference in read_pickle(self._file, raw).items()
            }
            self._check_overlaps()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> TorchFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; mapped tensors stay valid."""
        self._file.close()

    def _place(self, name: str, reference: TensorRef, members: dict[str, Member]) -> StoredTensor:
        storage = reference.storage
        member = members.get(f"data/{storage.key}")
        if member is None:
            self._file.fail(f"tensor {name[:_MAX_NAME]!r} wants storage {storage.key}, which is not in the file")
        wanted = storage.numel * storage.dtype.itemsize
        if member.size != wanted:
            self._file.fail(f"storage {storage.key} wants {wanted} bytes, the file has {member.size}")
        return StoredTensor(
            file=self._file,
            offset=member.offset + reference.offset * storage.dtype.itemsize,
            shape=reference.shape,
            encoding=PLAIN.get(storage.dtype, BYTES),
            stride=None if _is_contiguous(reference) else reference.stride,
        )

    def _check_overlaps(self) -> None:
        # Many names for the same bytes would let a small file ask for much memory. Only the head of a tied
        # model may be its embedding.
        end, previous = 0, ""
        for name, tensor in sorted(self.tensors.items(), key=lambda item: (item[1].offset, -item[1].nbytes)):
            tied = {name, previous} == _TIED and tensor == self.tensors[previous]
            if tensor.offset < end and not tied:
                self._file.fail(f"tensors {previous[:_MAX_NAME]!r} and {name[:_MAX_NAME]!r} share bytes")
            end, previous = max(end, tensor.offset + tensor.nbytes), name


def _is_contiguous(reference: TensorRef) -> bool:
    wanted = 1
    for size, step in zip(reversed(reference.shape), reversed(reference.stride), strict=True):
        if size > 1 and step != wanted:
            return False
        wanted *= size
    return True
