"""``citynet gateway spool export``: every unacknowledged record once, whatever the gateway does meanwhile."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from citynet import wire
from citynet.notes import RawNote
from citynet.reading import Reading
from citynet.wire import ALARM, TELEMETRY
from citynet_gateway.cli import app
from citynet_gateway.spool import SegmentSpool, SpoolSettings
from citynet_gateway.spool.export import export
from citynet_gateway.spool.files import LocalFiles
from citynet_gateway.spool.inspect import SegmentView
from citynet_gateway.spool.sqlite import SqliteSpool

SMALL = SpoolSettings(segment_bytes=600, bytes_max=80_000, tokens_max=4)


@pytest.fixture
def spool_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    spool = SegmentSpool(folder, SMALL, 7)
    for k in range(50):
        spool.append(TELEMETRY, [Reading("d", "m", 1_790_000_000_000_000 + k, float(k))], [])
        spool.sync(TELEMETRY)
    spool.append(ALARM, [Reading("d", "x_alarm", 1, float("nan"))], [RawNote("t", b"\xff", "bad")])
    spool.sync(ALARM)
    spool.ack(TELEMETRY, 7, 10)
    spool.save()
    spool.close()
    return folder


def test_csv_has_a_line_a_record(spool_dir: Path) -> None:
    out = io.StringIO()
    assert export(SegmentView(LocalFiles(), spool_dir), "gw", "csv", out) == 42
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert [float(row["value"]) for row in rows if row["stream"] == TELEMETRY] == [float(k) for k in range(10, 50)]
    assert [(row["kind"], row["value"]) for row in rows if row["stream"] == ALARM] == [("reading", ""), ("raw", "")]
    assert rows[0]["time"].startswith("2026-09-21T")


def test_batches_are_envelopes_that_decode(spool_dir: Path) -> None:
    out = io.StringIO()
    export(SegmentView(LocalFiles(), spool_dir), "gw", "batches", out)
    envelopes = [wire.decode(line.encode(), wire.JSON) for line in out.getvalue().splitlines()]
    found = [item.value for envelope in envelopes for item in envelope.readings() if item.metric == "m"]
    assert found == [float(k) for k in range(10, 50)]
    assert {(e.header.epoch, e.header.gateway) for e in envelopes} == {(7, "gw")}


class Overtaken(LocalFiles):
    """A gateway removes what was acknowledged between our look and our reading."""

    def __init__(self, spool_dir: Path) -> None:
        self.left = 3
        self.spool_dir = spool_dir

    def read(self, path: Path, offset: int, size: int) -> bytes:
        if path.name.startswith("telemetry"):
            self.left -= 1
            if self.left == 0:
                spool = SegmentSpool(self.spool_dir, SMALL, 8)
                spool.ack(TELEMETRY, 7, 40)
                spool.close()
        return super().read(path, offset, size)


def test_what_arrives_meanwhile_is_no_loss(spool_dir: Path) -> None:
    out = io.StringIO()
    export(SegmentView(Overtaken(spool_dir), spool_dir), "gw", "jsonl", out)
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert {row["kind"] for row in rows if row["stream"] == TELEMETRY} == {"reading"}
    found = [row["value"] for row in rows if row["stream"] == TELEMETRY]
    assert found[-10:] == [float(k) for k in range(40, 50)]
    assert len(found) < 40


def test_the_command_writes_new_files_only(spool_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    arguments = ["spool", "export", "--data-dir", str(spool_dir.parent), "--output", str(target)]
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stderr) == (0, "42 records\n")
    assert len(target.read_text().splitlines()) == 43
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    nowhere = CliRunner().invoke(app, ["spool", "export", "--data-dir", str(tmp_path / "no")])
    assert nowhere.exit_code == 1
    assert "No such file" in nowhere.stderr


def test_a_database_is_looked_into_the_same_way(tmp_path: Path) -> None:
    spool = SqliteSpool(tmp_path / "spool", SMALL, 7)
    for k in range(50):
        spool.append(TELEMETRY, [Reading("d", "m", 1_790_000_000_000_000 + k, float(k))], [])
    spool.sync(TELEMETRY)
    spool.ack(TELEMETRY, 7, 10)
    spool.save()
    status = CliRunner().invoke(app, ["spool", "status", "--json", "--data-dir", str(tmp_path)])
    assert [(item["acked"], item["last"]) for item in json.loads(status.stdout)["epochs"]] == [(10, 50)]
    assert CliRunner().invoke(app, ["spool", "verify", "--data-dir", str(tmp_path)]).exit_code == 0
    exported = CliRunner().invoke(app, ["spool", "export", "--format", "jsonl", "--data-dir", str(tmp_path)])
    assert [json.loads(line)["value"] for line in exported.stdout.splitlines()] == [float(k) for k in range(10, 50)]
    spool.close()
