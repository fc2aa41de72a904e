"""Both spools on a real disk that is full: a small tmpfs in a name space of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from citynet_gateway.spool import SegmentSpool, Spool, SpoolSettings
from citynet_gateway.spool.sqlite import SqliteSpool
from tests.faults.test_published_failures import contents

ON_A_SMALL_DISK = """
import errno, sys
from pathlib import Path
from citynet.reading import Reading
from citynet.wire import TELEMETRY
from citynet_gateway.spool import SegmentSpool, SpoolSettings
from citynet_gateway.spool.sqlite import SqliteSpool
folder = Path(sys.argv[1])
kind = {"segments": SegmentSpool, "sqlite": SqliteSpool}[sys.argv[3]]
ballast = folder / "ballast"
ballast.write_bytes(bytes(1 << 20))
spool = kind(folder / "spool", SpoolSettings(), 1)
number = accepted = refused = 0
while refused < 3:
    for _ in range(50):
        spool.append(TELEMETRY, [Reading("d", "m", number, float(number))], [])
        number += 1
    try:
        spool.sync(TELEMETRY)
        accepted = number
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
        assert spool.synced(TELEMETRY) == accepted, "nothing is accepted, and it is said"
        refused += 1
assert accepted > 1_000
ballast.unlink()
assert spool.sync(TELEMETRY) == number, "with room again nothing has to be repeated"
print(number, flush=True)
import os, shutil
shutil.copytree(folder / "spool", sys.argv[2])  # as a kill leaves it
os._exit(9)
"""


@pytest.mark.parametrize(("name", "kind"), [("segments", SegmentSpool), ("sqlite", SqliteSpool)])
def test_a_full_disk_is_told_as_one_and_costs_nothing(tmp_path: Path, name: str, kind: Callable[..., Spool]) -> None:
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    mounted = f'mount -t tmpfs -o size=4m none {disk} && exec {sys.executable} -c "$0" {disk} {copy} {name}'
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*words, "mount -t tmpfs none /mnt"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let a test mount a file system of its own")
    done = subprocess.run([*words, mounted, ON_A_SMALL_DISK], capture_output=True, check=False, text=True, timeout=120)
    assert done.returncode == 9, done.stderr
    spool = kind(copy, SpoolSettings(), 2)
    values, losses = contents(spool)
    spool.close()
    assert losses == []
    assert values == [float(k) for k in range(int(done.stdout))]
