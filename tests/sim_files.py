"""A modelled file system behind the spool's port: what is durable against what only the page cache has.

A power cut keeps of everything unsynced an arbitrary part: sectors of writes in any order, directory entries or not. After
a failed sync the pages count as clean although they never reached the storage, as on Linux. A kill keeps the page cache.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

SECTOR_BYTES = 512

_Op = tuple[int, bytes | None]  # (offset, data), or (size, None) for a truncation


def _apply(content: bytearray, op: _Op) -> None:
    offset, data = op
    if data is None:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
        return
    content.extend(bytes(max(0, offset + len(data) - len(content))))
    content[offset : offset + len(data)] = data


class DiedError(BaseException):
    """The process ends here. No production code catches it."""


@dataclass(eq=False)
class Inode:
    cached: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[_Op] = field(default_factory=list)

    def change(self, op: _Op) -> None:
        _apply(self.cached, op)
        self.unsynced.append(op)

    def sync(self) -> None:
        for op in self.unsynced:
            _apply(self.durable, op)
        self.unsynced.clear()

    def cut(self, random: Random) -> None:
        """Power is gone: any part of the unsynced changes made it, in sectors, in any order."""
        pieces: list[_Op] = []
        for offset, data in self.unsynced:
            if data is None:
                pieces.append((offset, None))
                continue
            pieces += [(offset + at, data[at : at + SECTOR_BYTES]) for at in range(0, len(data), SECTOR_BYTES)]
        if random.random() < 0.5:
            random.shuffle(pieces)
        for op in pieces:
            if random.random() < 0.6:
                _apply(self.durable, op)
        self.unsynced.clear()
        self.cached = bytearray(self.durable)


class SimFile:
    def __init__(self, files: SimFiles, inode: Inode) -> None:
        self._files = files
        self._inode = inode
        self._generation = files.generation

    def _live(self) -> Inode:
        if self._generation != self._files.generation:
            raise OSError(errno.EBADF, "a descriptor of a process that is gone")
        return self._inode

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        inode = self._live()
        room = self._files.check("pwrite")
        taken = bytes(data if room is None else data[:room])
        inode.change((offset, taken))
        return len(taken)

    def datasync(self) -> None:
        inode = self._live()
        try:
            self._files.check("datasync")
        except OSError:
            inode.unsynced.clear()  # the pages count as clean now; a later sync reports success without them
            raise
        inode.sync()

    def truncate(self, size: int) -> None:
        inode = self._live()
        self._files.check("truncate")
        inode.change((size, None))

    def close(self) -> None:
        self._files.check("close")


class SimFiles:
    """The port `citynet_gateway.spool.files.Files`.

    `faults` maps an operation to what its next calls do: None works, an int writes only so many bytes, an errno raises.
    """

    def __init__(self) -> None:
        self.cached: dict[Path, Inode] = {}
        self.durable: dict[Path, Inode] = {}
        self._moves: list[tuple[Path, Inode | None]] = []
        self.faults: dict[str, list[int | OSError | None]] = {}
        self.calls: dict[str, int] = {}
        self.generation = 0
        self.dies_in: int | None = None  # the process dies at that many calls from now, before the call does anything

    def check(self, operation: str) -> int | None:
        """Count the call and do what was planned for it; the room of a short write."""
        self.calls[operation] = self.calls.get(operation, 0) + 1
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                raise DiedError(operation)
        planned = self.faults.get(operation)
        fault = planned.pop(0) if planned else None
        if isinstance(fault, OSError):
            raise fault
        return fault

    def kill(self) -> None:
        """The process dies; the page cache stays."""
        self.generation += 1
        self.faults.clear()
        self.dies_in = None

    def cut(self, random: Random) -> None:
        """The power goes: of what was not synced, an arbitrary part stays."""
        self.kill()
        for path, inode in self._moves:
            if random.random() < 0.5:
                self._place(self.durable, path, inode)
        self._moves.clear()
        for inode in {id(inode): inode for inode in [*self.durable.values(), *self.cached.values()]}.values():
            inode.cut(random)
        self.cached = dict(self.durable)

    @staticmethod
    def _place(entries: dict[Path, Inode], path: Path, inode: Inode | None) -> None:
        if inode is None:
            entries.pop(path, None)
        else:
            entries[path] = inode

    def _move(self, path: Path, inode: Inode | None) -> None:
        self._place(self.cached, path, inode)
        self._moves.append((path, inode))

    def prepare(self, folder: Path) -> None:
        self.check("prepare")

    def lock(self, path: Path) -> SimFile:
        return SimFile(self, Inode())

    def names(self, folder: Path) -> list[str]:
        return sorted(path.name for path in self.cached if path.parent == folder)

    def size(self, path: Path) -> int:
        return len(self._inode(path).cached)

    def read(self, path: Path, offset: int, size: int) -> bytes:
        self.check("read")
        return bytes(self._inode(path).cached[offset : offset + size])

    def create(self, path: Path) -> SimFile:
        self.check("create")
        if path in self.cached:
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        self._move(path, Inode())
        return SimFile(self, self.cached[path])

    def open(self, path: Path) -> SimFile:
        self.check("open")
        if path not in self.cached:
            self._move(path, Inode())
        return SimFile(self, self.cached[path])

    def rename(self, source: Path, target: Path) -> None:
        self.check("rename")
        inode = self._inode(source)
        self._move(target, inode)
        self._move(source, None)

    def unlink(self, path: Path) -> None:
        self.check("unlink")
        if path in self.cached:
            self._move(path, None)

    def sync_folder(self, folder: Path) -> None:
        self.check("sync_folder")
        for path, inode in self._moves:
            self._place(self.durable, path, inode)
        self._moves.clear()

    def _inode(self, path: Path) -> Inode:
        if path not in self.cached:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return self.cached[path]
