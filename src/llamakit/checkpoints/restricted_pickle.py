"""Reads which tensors a torch.save file holds, without unpickling: a tiny machine that can only describe.

data.pkl is a program. This interpreter knows the few opcodes and names that a plain state dict uses;
a name is compared with the table below and never imported, a call makes a description and runs nothing.
Any other opcode, name or argument ends the reading. Memory is paid from the file's allowance before it
is taken, keys are strings only (hashing nested tuples can take for ever), and steps are counted.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import torch

from llamakit.checkpoints.checked_file import MAX_DIMS, MAX_TENSORS, CheckedFile
from llamakit.checkpoints.stored import span

_MAX_STEPS = 150_000
"""Opcodes run at most; a file of Llama 3.1 405B has about 40 thousand."""
_MAX_NAME = 100
_REBUILD, _PARAMETER, _ORDERED = (
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "collections OrderedDict",
)
_STORAGES = {
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch DoubleStorage": torch.float64,
    "torch CharStorage": torch.int8,
}
ALLOWED_NAMES: Final = frozenset({_REBUILD, _PARAMETER, _ORDERED, *_STORAGES})


@dataclass(frozen=True, slots=True)
class _Name:
    """A name of the allow list, as a word; not the thing it names."""

    text: str


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A storage as the pickle describes it: the file data/<key> with `numel` values."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor as the pickle describes it; sizes and offsets in values."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_pickle(file: CheckedFile, raw: bytes) -> dict[str, TensorRef]:
    """The state dict that `raw` describes; raises `CheckpointError` for anything that is not one."""
    result = _Machine(file, raw).run()
    if not isinstance(result, dict):
        file.fail(f"data.pkl holds a {type(result).__name__}, wanted a dict of tensors")
    if len(result) > MAX_TENSORS:
        file.fail(f"holds {len(result)} tensors, at most {MAX_TENSORS} are read")
    for name, value in result.items():
        if not isinstance(value, TensorRef):
            file.fail(f"data.pkl has a {type(value).__name__} under {name[:_MAX_NAME]!r}, wanted tensors only")
    return result


class _Machine:
    """Stack, marks and memo of one pickle program."""

    def __init__(self, file: CheckedFile, raw: bytes) -> None:
        self._file, self._raw = file, raw
        self._position = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Run to STOP and return the one value left."""
        steps: dict[int, Callable[[], None]] = {
            0x80: self._proto, 0x28: self._mark, 0x7D: self._empty_dict, 0x5D: self._empty_list,
            0x29: self._empty_tuple, 0x74: self._tuple, 0x85: lambda: self._tuple_of(1),
            0x86: lambda: self._tuple_of(2), 0x87: lambda: self._tuple_of(3), 0x4E: lambda: self._push(None),
            0x88: lambda: self._push(True), 0x89: lambda: self._push(False),
            0x4B: lambda: self._number("<B"), 0x4D: lambda: self._number("<H"), 0x4A: lambda: self._number("<i"),
            0x8A: self._long, 0x47: lambda: self._number(">d"), 0x58: self._text, 0x63: self._name,
            0x71: lambda: self._put("<B"), 0x72: lambda: self._put("<I"),
            0x68: lambda: self._get("<B"), 0x6A: lambda: self._get("<I"),
            0x51: self._persistent, 0x52: self._reduce, 0x62: self._build, 0x73: self._set_item,
            0x75: self._set_items, 0x61: self._append, 0x65: self._append_all,
        }  # fmt: skip
        for _ in range(_MAX_STEPS):
            code = self._take(1)[0]
            if code == 0x2E:
                return self._finish()
            step = steps.get(code)
            if step is None:
                self._fail(f"uses pickle opcode {code:#04x}, which a plain state dict does not need")
            step()
        self._fail(f"runs more than {_MAX_STEPS} pickle steps")

    def _fail(self, fault: str) -> NoReturn:
        self._file.fail(f"data.pkl {fault}; only plain dicts of tensors are read and no code is ever run")

    def _finish(self) -> Any:
        if len(self._stack) != 1 or self._marks or self._position != len(self._raw):
            self._fail("does not end with one value")
        return self._stack[0]

    # Bytes of the program

    def _take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._raw):
            self._fail("ends in the middle of a step")
        piece = self._raw[self._position : end]
        self._position = end
        return piece

    def _unpack(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> str:
        end = self._raw.find(b"\n", self._position, self._position + _MAX_NAME)
        if end < 0:
            self._fail("has a name without end")
        line = self._take(end + 1 - self._position)
        return line[:-1].decode("ascii", errors="replace")

    # The stack

    def _push(self, value: Any, cost: int = 16) -> None:
        # `cost` estimates the object beside its place on the stack, in CPython's bytes.
        self._file.allowance.spend(cost, "data.pkl")
        self._stack.append(value)

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            self._fail("takes a value that is not there")
        return self._stack.pop()

    def _top(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            self._fail("takes a value that is not there")
        return self._stack[-1]

    def _pop_to_mark(self) -> list[Any]:
        if not self._marks:
            self._fail("closes a mark that was not set")
        start = self._marks.pop()
        self._file.allowance.spend(64 + 8 * (len(self._stack) - start), "data.pkl")
        values = self._stack[start:]
        del self._stack[start:]
        return values

    # Opcodes that make values

    def _proto(self) -> None:
        version = self._take(1)[0]
        if version not in (2, 3) or self._position != 2:
            self._fail(f"is of pickle protocol {version}, wanted 2 or 3 at the start")

    def _mark(self) -> None:
        self._file.allowance.spend(48, "data.pkl")
        self._marks.append(len(self._stack))

    def _empty_dict(self) -> None:
        self._push({}, 300)

    def _empty_list(self) -> None:
        self._push([], 80)

    def _empty_tuple(self) -> None:
        self._push(())

    def _tuple(self) -> None:
        values = self._pop_to_mark()
        self._push(tuple(values), 72 + 8 * len(values))

    def _tuple_of(self, count: int) -> None:
        values = [self._pop() for _ in range(count)]
        self._push(tuple(reversed(values)), 72 + 8 * count)

    def _number(self, form: str) -> None:
        self._push(self._unpack(form), 48)

    def _long(self) -> None:
        count = self._take(1)[0]
        if count > 8:
            self._fail("has an integer of more than 64 bits")
        self._push(int.from_bytes(self._take(count), "little", signed=True), 48)

    def _text(self) -> None:
        data = self._take(self._unpack("<I"))
        self._file.allowance.spend(80 + 4 * len(data), "data.pkl")
        try:
            self._push(data.decode("utf-8"))
        except UnicodeDecodeError:
            self._fail("has text that is not UTF-8")

    def _name(self) -> None:
        text = f"{self._line()} {self._line()}"
        if text not in ALLOWED_NAMES:
            self._fail(f"names {text.replace(' ', '.')!r}, which is not on the allow list")
        self._push(_Name(text), 120)

    # The memo

    def _put(self, form: str) -> None:
        self._file.allowance.spend(150, "data.pkl")
        self._memo[self._unpack(form)] = self._top()

    def _get(self, form: str) -> None:
        slot = self._unpack(form)
        if slot not in self._memo:
            self._fail("recalls a value that was not stored")
        self._push(self._memo[slot])

    # Opcodes that fill containers

    def _store(self, target: Any, pairs: list[Any]) -> None:
        if type(target) is not dict or len(pairs) % 2:
            self._fail("sets items of something that is not a dict")
        self._file.allowance.spend(110 * len(pairs), "data.pkl")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(key) is not str:
                self._fail(f"has a dict key of type {type(key).__name__}, wanted text")
            if key in target:
                self._fail(f"has the key {key[:_MAX_NAME]!r} twice")
            target[key] = value

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._store(self._top(), [key, value])

    def _set_items(self) -> None:
        pairs = self._pop_to_mark()
        self._store(self._top(), pairs)

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            self._fail("appends to something that is not a list")
        self._file.allowance.spend(16 * len(values), "data.pkl")
        target.extend(values)

    def _append(self) -> None:
        self._extend([self._pop()])

    def _append_all(self) -> None:
        self._extend(self._pop_to_mark())

    # Opcodes that would call something

    def _persistent(self) -> None:
        match self._pop():
            case ("storage", _Name(text), str(key), str(), int(numel)) if text in _STORAGES and type(numel) is int:
                # isdecimal also takes other scripts' digits, which no member name has.
                if not (key.isascii() and key.isdecimal() and 0 < numel < 2**63):
                    self._fail("describes a storage with an impossible key or size")
                self._push(StorageRef(key, _STORAGES[text], numel), 160)
            case _:
                self._fail("refers to something that is not a tensor storage")

    def _reduce(self) -> None:
        arguments, name = self._pop(), self._pop()
        match name, arguments:
            case _Name(text=n), () if n == _ORDERED:
                self._empty_dict()
            case _Name(text=n), (StorageRef() as storage, offset, shape, stride, bool(), dict() as hooks) if (
                n == _REBUILD
            ):
                if hooks:
                    self._fail("has a tensor with hooks")
                self._push(self._tensor(storage, offset, shape, stride), 160)
            case _Name(text=n), (TensorRef() as tensor, bool(), dict() as hooks) if n == _PARAMETER and not hooks:
                self._push(tensor)
            case _:
                self._fail("calls something with arguments that no plain tensor needs")

    def _tensor(self, storage: StorageRef, offset: Any, shape: Any, stride: Any) -> TensorRef:
        numbers = (offset, *shape, *stride) if type(shape) is type(stride) is tuple else (None,)
        if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
            self._fail("has a tensor whose sizes are not natural numbers")
        if len(shape) != len(stride) or len(shape) > MAX_DIMS or 0 in shape:
            self._fail("has a tensor of impossible shape")
        if any(size > 1 and step == 0 for size, step in zip(shape, stride, strict=True)):
            self._fail("has a tensor that repeats values")
        reach = span(shape, stride)
        if math.prod(shape) > reach or offset + reach > storage.numel:
            self._fail(f"has a tensor beyond its storage of {storage.numel} values")
        return TensorRef(storage, offset, shape, stride)

    def _build(self) -> None:
        # A module's state dict carries version numbers of its layers as state; they are no weights.
        state = self._pop()
        if type(self._top()) is not dict or type(state) is not dict or state.keys() - {"_metadata"}:
            self._fail("sets the state of something that is not a state dict")
