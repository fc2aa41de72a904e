"""The spool's file system port, so that tests can inject ENOSPC, EIO, short writes and power cuts.

`LocalFiles` is the real one: plain system calls, no buffering of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Protocol


class File(Protocol):
    """An open file. Writing is always positioned, so that a failed write is repeated at the same place."""

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Write at `offset`; returns the bytes written, which may be fewer than asked."""
        ...

    def datasync(self) -> None: ...

    def truncate(self, size: int) -> None: ...

    def close(self) -> None: ...


class Files(Protocol):
    """A directory tree; `OSError` as the operating system raises it."""

    def prepare(self, folder: Path) -> None:
        """Make the folder and its parents."""
        ...

    def lock(self, path: Path) -> File:
        """Take the exclusive lock `path` until it is closed. BlockingIOError if another process has it."""
        ...

    def names(self, folder: Path) -> list[str]: ...

    def size(self, path: Path) -> int: ...

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`; fewer only at the end of the file."""
        ...

    def create(self, path: Path) -> File:
        """A new file; FileExistsError if there is one."""
        ...

    def open(self, path: Path) -> File:
        """An existing file for writing, or a new one."""
        ...

    def rename(self, source: Path, target: Path) -> None: ...

    def unlink(self, path: Path) -> None: ...

    def sync_folder(self, folder: Path) -> None:
        """Make creations, renames and removals in this folder durable."""
        ...


class LocalFile:
    """A file descriptor of the operating system."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        return os.pwrite(self._descriptor, data, offset)

    def datasync(self) -> None:
        os.fdatasync(self._descriptor)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


class LocalFiles:
    """The operating system's files."""

    def prepare(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def lock(self, path: Path) -> File:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return LocalFile(descriptor)

    def names(self, folder: Path) -> list[str]:
        return sorted(os.listdir(folder))

    def size(self, path: Path) -> int:
        return path.stat().st_size

    def read(self, path: Path, offset: int, size: int) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts: list[bytes] = []
            while size > 0 and (part := os.pread(descriptor, size, offset)):
                parts.append(part)
                offset, size = offset + len(part), size - len(part)
            return b"".join(parts)
        finally:
            os.close(descriptor)

    def create(self, path: Path) -> File:
        return LocalFile(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))

    def open(self, path: Path) -> File:
        return LocalFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640))

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_all(file: File, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`, however short the single writes are.

    Raises:
        OSError: as the file raises it; the bytes from `offset` on are then undefined.
    """
    view = memoryview(data)
    while view:
        written = file.pwrite(view, offset)
        if written <= 0:
            raise OSError(5, "write made no progress")
        view, offset = view[written:], offset + written


def replace_durably(files: Files, path: Path, data: bytes) -> None:
    """Replace a small file: written aside, synced, renamed. After a power cut it is the old one or the new one.

    Raises:
        OSError: as the storage says; the old file is still there.
    """
    aside = path.with_name(path.name + ".new")
    files.unlink(aside)
    file = files.create(aside)
    try:
        write_all(file, data, 0)
        file.datasync()
    finally:
        close_quietly(file)
    files.rename(aside, path)
    files.sync_folder(path.parent)


def close_quietly(file: File) -> None:
    """Close a descriptor that is given up anyway; its error was reported where it was found."""
    with contextlib.suppress(OSError):
        file.close()
