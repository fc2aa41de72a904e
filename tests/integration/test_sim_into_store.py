"""A run straight into the store: the readings of the file, booked, in order; and what stands in its way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from citynet.runtime.embedded import EmbeddedMosquitto
from tests.ingest import ingest_running, query

START = "2026-11-01T00:00:00Z"
DAYS = 10  # more than one span of a block


def _config(folder: Path, dsn: str) -> Path:
    path = folder / "citynet.toml"
    path.write_text(
        f"[database]\ndsn = {json.dumps(dsn)}\n[sim]\nseed = 3\nscenario = {json.dumps(str(_scenario(folder)))}\n"
        "[sim.sampling]\nevery_s = 600\n[sim.city]\npopulation = 0\n[sim.city.devices]\ngas-well = 4\nair-station = 2\n"
    )
    return path


def _scenario(folder: Path) -> Path:
    """A clock that runs ahead for hours and then is set back: the readings after that are late."""
    path = folder / "skewed.toml"
    path.write_text(
        'about = "a clock ahead"\nduration_s = 864000\n[[fault]]\nkind = "clock-skew"\nat_s = 86400\nhold_s = 36000\n'
        'peak = 3600\ndevice = "gas-0002"\n'
    )
    return path


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "citynet", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)


def _stored(dsn: str) -> dict[str, list[tuple[int, float, int]]]:
    found: dict[str, list[tuple[int, float, int]]] = {}
    rows = query(
        dsn,
        "SELECT d.name || '/' || s.metric, (extract(epoch FROM r.time) * 1000000)::bigint, r.value, r.quality FROM reading r"
        " JOIN series s ON s.id = r.series_id JOIN device d ON d.id = s.device_id",
    )
    for name, time_us, value, quality in rows:
        found.setdefault(str(name), []).append((int(time_us), float(value), int(quality)))
    return found


def test_the_store_has_the_files_readings_and_the_books_are_whole(folder: Path, dsn: str) -> None:
    config, columns = _config(folder, dsn), folder / "same.npz"
    truth = folder / "truth.jsonl"
    done = _run("sim", "run", "--config", str(config), "--start", START, "--into-store", "--truth", str(truth))
    assert done.returncode == 0, done.stderr
    assert _run("sim", "run", "--config", str(config), "--start", START, "--out", str(columns)).returncode == 0
    stored, total = _stored(dsn), 0
    with np.load(columns) as archive:
        for member in archive.files:
            device, metric = member.split("/")
            if metric == "time_us":
                continue
            times, found = archive[f"{device}/time_us"], sorted(stored.pop(member))
            order = np.argsort(times, kind="stable")
            assert [row[0] for row in found] == times[order].tolist()
            assert sorted(row[1] for row in found) == sorted(archive[member].tolist())
            late = {
                int(t) for t, newest in zip(times[1:], np.maximum.accumulate(times)[:-1], strict=True) if t <= newest
            }
            assert {row[0] for row in found if row[2] & 64} == late
            assert bool(late) == (device == "gas-0002")
            total += len(found)
    assert not stored
    assert f"{total} readings in the database" in done.stderr
    books = query(dsn, "SELECT sum(seq), sum(stored), sum(claimed), count(*) FROM stream_cursor")
    assert [int(value) for value in books[0]] == [total, total, total, 2]
    audit = _run("audit", "--config", str(config), "--json")
    assert audit.returncode == 0, audit.stdout
    assert [json.loads(line)["t"] for line in truth.read_text().splitlines()] == ["header", "end"]

    again = _run("sim", "run", "--config", str(config), "--start", START, "--into-store")
    assert again.returncode == 1
    assert "has readings in this database" in again.stderr.splitlines()[-1]
    assert query(dsn, "SELECT sum(seq) FROM stream_cursor")[0][0] == total


def test_a_running_worker_stands_in_the_way(folder: Path, dsn: str, broker: EmbeddedMosquitto) -> None:
    config = _config(folder, dsn)
    with ingest_running(folder, broker, dsn):
        done = _run("sim", "run", "--config", str(config), "--start", START, "--into-store")
    assert done.returncode == 1
    assert "owned by another ingest worker" in done.stderr.splitlines()[-1]
    assert query(dsn, "SELECT count(*) FROM reading")[0][0] == 0


def test_transport_faults_have_no_columns(folder: Path, dsn: str) -> None:
    config = _config(folder, dsn)
    done = _run("sim", "run", "replayed-readings", "--config", str(config), "--into-store")
    assert done.returncode == 1
    assert "columns have no transport" in done.stderr.splitlines()[-1]
    assert _run("sim", "run", "--config", str(config), "--into-store", "--out", str(folder / "x.npz")).returncode == 1
