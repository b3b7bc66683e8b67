"""A layer between SQLite and its files that sees each write, truncation, sync and deletion first, and may refuse it.

It is a VFS (https://www.sqlite.org/vfs.html) made with ctypes: SQLite's own for this system, with four methods
replaced. So the real driver runs, on real files, as it does without; no debugger and no root are needed. Changes of the
shared memory (`-shm`) are not seen: SQLite rebuilds that file from the log.
"""

from __future__ import annotations

import _sqlite3
import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

OK = 0  # SQLITE_OK


@dataclass(frozen=True, slots=True)
class Operation:
    """What SQLite is about to do. `data` at `offset`, of a write; `offset` is the new size, of a truncation; a deletion
    with `offset` 1 is made durable at once."""

    kind: Literal["write", "truncate", "sync", "delete"]
    path: str
    offset: int = 0
    data: bytes = b""

    def carry_out_half(self) -> None:
        """As if the process died in the middle of a write."""
        with Path(self.path).open("r+b") as file:
            file.seek(self.offset)
            file.write(self.data[: len(self.data) // 2])


class _Methods(Structure):
    """`sqlite3_io_methods`, version 3."""


class _File(Structure):
    """`sqlite3_file`."""

    _fields_ = (("methods", POINTER(_Methods)),)


_FILE = POINTER(_File)
_Write = CFUNCTYPE(c_int, _FILE, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, _FILE, c_int64)
_Sync = CFUNCTYPE(c_int, _FILE, c_int)

_Methods._fields_ = (
    ("version", c_int),
    *((name, c_void_p) for name in ("close", "read")),
    ("write", _Write),
    ("truncate", _Truncate),
    ("sync", _Sync),
    *((f"other{number}", c_void_p) for number in range(13)),
)


class _Vfs(Structure):
    """`sqlite3_vfs`, version 3."""


# A name is handed on as the pointer that it came as: SQLite's own VFS keeps it, and reads behind the name's end. As a
# `c_char_p` it would come as a copy that is gone after the call, and `-shm` files would be named by what is there then.
_Open = CFUNCTYPE(c_int, POINTER(_Vfs), c_void_p, _FILE, c_int, POINTER(c_int))
_Delete = CFUNCTYPE(c_int, POINTER(_Vfs), c_void_p, c_int)

_Vfs._fields_ = (
    *((name, c_int) for name in ("version", "size_of_file", "longest_path")),
    ("following", c_void_p),
    ("name", c_char_p),
    ("data", c_void_p),
    ("open", _Open),
    ("delete", _Delete),
    *((f"other{number}", c_void_p) for number in range(14)),
)

_kept: list[Any] = []  # what SQLite holds pointers to


See = Callable[[Operation], int | None]
"""Called with each operation before it is carried out. Returns an error code to refuse it."""


def watch(see: See) -> None:
    """Call `see` before each operation of every connection opened from now on, on the thread that does it."""
    sqlite = ctypes.CDLL(_sqlite3.__file__)
    sqlite.sqlite3_vfs_find.restype = POINTER(_Vfs)
    real: _Vfs = sqlite.sqlite3_vfs_find(None).contents
    ours = _Vfs()
    ctypes.memmove(ctypes.byref(ours), ctypes.byref(real), ctypes.sizeof(_Vfs))
    ours.following, ours.name = None, b"watched"
    ours.open, ours.delete = _Open(_opener(real, see)), _Delete(_deleter(real, see))
    _kept.extend((real, ours))
    assert sqlite.sqlite3_vfs_register(ctypes.byref(ours), 1) == OK


def _opener(real: _Vfs, see: See) -> Callable[..., int]:
    def open_file(_: Any, name: int | None, file: Any, flags: int, out: Any) -> int:
        code = int(real.open(ctypes.byref(real), name, file, flags, out))
        if code == OK and name is not None:  # a file without a name is a temporary one
            file.contents.methods = ctypes.pointer(_watched(file.contents.methods.contents, _text(name), see))
        return code

    return open_file


def _watched(real: _Methods, path: str, see: See) -> _Methods:
    def write(file: Any, data: int, size: int, offset: int) -> int:
        refused = see(Operation("write", path, offset, ctypes.string_at(data, size)))
        return refused or int(real.write(file, data, size, offset))

    def truncate(file: Any, size: int) -> int:
        refused = see(Operation("truncate", path, size))
        return refused or int(real.truncate(file, size))

    def sync(file: Any, flags: int) -> int:
        refused = see(Operation("sync", path))
        return refused or int(real.sync(file, flags))

    methods = _Methods()
    ctypes.memmove(ctypes.byref(methods), ctypes.byref(real), ctypes.sizeof(_Methods))
    methods.write, methods.truncate, methods.sync = _Write(write), _Truncate(truncate), _Sync(sync)
    _kept.extend((real, methods))
    return methods


def _deleter(real: _Vfs, see: See) -> Callable[..., int]:
    def delete(_: Any, name: int, sync_folder: int) -> int:
        refused = see(Operation("delete", _text(name), sync_folder))
        return refused or int(real.delete(ctypes.byref(real), name, sync_folder))

    return delete


def _text(name: int) -> str:
    return ctypes.string_at(name).decode()
