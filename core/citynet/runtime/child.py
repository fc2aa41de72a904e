"""Child processes that never outlive their parent, and that are ended by their own id only."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_CPUCLOCK_SCHED = 2  # the kernel's number for all of a process; clock_getcpuclockid(3) would build the same
_libc = ctypes.CDLL(None, use_errno=True)
_UNPRIVILEGED = "nobody"
_RESERVED_MAX = 128
_reserved: deque[int] = deque()  # file descriptors


def free_port() -> int:
    """A TCP port of the loopback interface that is free now, and stays out of everybody's lottery while we live.

    We keep a socket bound to it that never listens: the system then gives the port to nobody who asks for any, and a
    server that sets SO_REUSEADDR (as they all do, for their own restart) may still listen there, and again after a
    crash. Only the newest `_RESERVED_MAX` are kept."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port = int(holder.getsockname()[1])
    _reserved.append(holder.detach())
    if len(_reserved) > _RESERVED_MAX:
        os.close(_reserved.popleft())
    return port


def cpu_s(pid: int) -> float:
    """Processor time that a process has used, all threads. OSError if there is none.

    From its clock, which counts nanoseconds: /proc counts hundredths, and a short run would have cost nothing.
    """
    return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)


def unprivileged_user() -> pwd.struct_passwd | None:
    """The user to run a database server as when we are root, else None (as ourselves)."""
    return pwd.getpwnam(_UNPRIVILEGED) if os.geteuid() == 0 else None


def spawn(
    command: Sequence[str],
    output: IO[bytes] | int,
    *,
    user: pwd.struct_passwd | None = None,
    environment: Mapping[str, str] | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
    folder: Path = Path("/"),
) -> subprocess.Popen[bytes]:
    """Start a process that gets `death_signal` when this thread dies, in a session of its own (Ctrl-C reaches only us).

    It works in `folder`."""
    ids: dict[str, object] = {}
    if user is not None:
        ids = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]  # noqa: S603
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with_parent(death_signal, os.getpid()),  # noqa: PLW1509  (two syscalls, no locks)
        env=dict(environment) if environment is not None else None,
        cwd=folder,
        **ids,
    )


def _die_with_parent(death_signal: signal.Signals, parent: int) -> Callable[[], None]:
    def arrange() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return arrange


def stop(process: subprocess.Popen[bytes], first: signal.Signals = signal.SIGTERM, grace_s: float = 4.0) -> int:
    """Ask a process to stop, then insist. Returns its exit status."""
    if process.poll() is None:
        process.send_signal(first)
        try:
            return process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def reachable_by(path: Path, user: pwd.struct_passwd) -> bool:
    """Whether every folder above `path` can be traversed by `user` (by the permission bits of "others" and the owner)."""
    return all(
        (folder.stat().st_mode & 0o001) or (folder.stat().st_uid == user.pw_uid) for folder in path.resolve().parents
    )


def program(name: str) -> str | None:
    """Full path of a program, looked for in PATH and the system's sbin folders."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


def listens(port: int) -> bool:
    """Whether somebody accepts connections on this loopback port."""
    with closing(socket.socket()) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
