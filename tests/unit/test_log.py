"""Log lines: JSON for machines, plain for people, priorities for the journal."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from citynet.runtime import log
from citynet.runtime.settings import LogSettings


def test_json_lines_carry_module_role_level_time_and_facts(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(LogSettings(level="info", format="json"), "gateway")
    log.get("a.module").bind(gateway="gw-1").warning("spool-room-lost", error="voll ü", path=Path("x"))
    entry = json.loads(capsys.readouterr().err)
    assert entry.pop("at").endswith("Z")
    assert entry == {
        "module": "a.module", "gateway": "gw-1", "error": "voll ü", "path": "PosixPath('x')", "event": "spool-room-lost",
        "role": "gateway", "level": "warning",
    }  # fmt: skip


def test_lower_levels_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(LogSettings(level="warning", format="json"), "x")
    log.get("m").info("quiet")
    log.get("m").error("loud")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["loud"]


def test_plain_lines_quote_what_has_blanks_and_end_with_the_exception(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(LogSettings(level="info", format="console"), "x")
    try:
        raise ValueError("broken")
    except ValueError:
        log.get("m").error("failed", text="two words", number=3, exc_info=sys.exc_info())
    first, *rest = capsys.readouterr().err.splitlines()
    assert "[error  ] failed" in first
    assert "text='two words' number=3" in first
    assert rest[-1] == "ValueError: broken"


def test_under_systemd_lines_begin_with_their_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "journal").open("w+") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        log.configure(LogSettings(level="info", format="auto"), "gateway")
        log.get("m").warning("a")
        log.get("m").info("b")
        stream.seek(0)
        lines = stream.read().splitlines()
    assert [line[:4] for line in lines] == ["<4>{", "<6>{"]
