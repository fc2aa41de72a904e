"""The truth file: written, read back, damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from citynet.reading import Reading
from citynet_sim.truth import End, TruthError, TruthWriter, read_truth

HEADER = {"seed": 1, "incidents": [{"id": "leak-1"}]}


def _write(path: Path, *, end: bool = True) -> None:
    writer = TruthWriter(path)
    writer.header(HEADER)
    writer.messages(
        (
            n,
            "gw-01",
            [Reading("gas-0001", "ch4_lel", n * 1000, 0.1 * n), Reading("gas-0001", "o2_vol", n * 1000, 20.8)],
            n == 5,
        )
        for n in range(1, 7)
    )
    writer.acked(1, [3])
    writer.resent([4])
    writer.resent([4, 6])
    writer.lost([2], "buffer-full")
    writer.acked(4, [])
    if end:
        writer.end(End(6, 3, 1, 12))
    writer.close()


def test_says_what_became_of_every_message(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    _write(path)
    truth = read_truth(path)
    assert truth.header["seed"] == 1
    assert truth.incidents == [{"id": "leak-1"}]
    assert [message.acked for message in truth.messages] == [True, False, True, True, False, False]
    assert [message.lost for message in truth.messages] == [None, "buffer-full", None, None, None, None]
    assert [message.resends for message in truth.messages] == [0, 0, 0, 2, 0, 1]
    assert [message.is_copy for message in truth.messages] == [False, False, False, False, True, False]
    assert truth.messages[2].readings[0] == Reading("gas-0001", "ch4_lel", 3000, 0.1 * 3)
    assert truth.end == End(6, 3, 1, 12)


def test_torn_last_line_counts_as_not_written(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    _write(path, end=False)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"t":"msg","n":7,"gat')
    truth = read_truth(path)
    assert len(truth.messages) == 6
    assert truth.end is None


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 3"),
        ('{"t":"msg","n":1}', "line 3: 'device'"),
        ('{"t":"msg","n":9,"gateway":"g","device":"d","readings":[]}', "line 3: message 9 follows message 1"),
        ('{"t":"header","v":1}', "line 3: 'header' cannot stand here"),
        ('{"t":"weather"}', "line 3: unknown kind 'weather'"),
        ("[]", "line 3"),
    ],
)
def test_malformed_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "truth.jsonl"
    good = ['{"t":"header","v":1}', '{"t":"msg","n":1,"gateway":"g","device":"d","readings":[["m",1,2.0]]}']
    path.write_text("\n".join([*good, line, ""]))
    with pytest.raises(TruthError, match=complaint):
        read_truth(path)


def test_other_version_empty_file_and_absent_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    with pytest.raises(TruthError, match="No such file"):
        read_truth(path)
    path.write_text("")
    with pytest.raises(TruthError, match="no header"):
        read_truth(path)
    path.write_text('{"t":"header","v":2}\n')
    with pytest.raises(TruthError, match="version 2, this reader knows 1"):
        read_truth(path)


def test_truth_of_a_run_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    _write(path)
    before = path.read_bytes()
    with pytest.raises(TruthError, match="already there"):
        TruthWriter(path)
    assert path.read_bytes() == before


def test_each_line_is_in_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    writer = TruthWriter(path)
    writer.header(HEADER)
    writer.messages([(1, "gw-01", [Reading("d", "m", 1, 2.0)], False)])
    assert [json.loads(line)["t"] for line in path.read_text().splitlines()] == ["header", "msg"]
    writer.close()


def test_reader_needs_neither_numpy_nor_an_mqtt_client() -> None:
    code = "import sys, citynet_sim.truth; print([m for m in ('numpy', 'aiomqtt', 'paho') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
