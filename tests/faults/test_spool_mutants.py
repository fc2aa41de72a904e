"""The spool's model test is itself tested: each of these mutations must be noticed within its schedules."""

from __future__ import annotations

import pytest

from citynet_gateway.spool import ledger, recovery, writer
from citynet_gateway.spool.store import SegmentSpool
from tests.property.test_spool_model import run_schedules
from tests.sim_files import SimFile, SimFiles

FIRST_SEEDS = (0, 55, 190)  # each is the first of a few schedules


def caught() -> bool:
    try:
        for seed in FIRST_SEEDS:
            run_schedules(seed, 20, 60)
    except AssertionError:
        return True
    return False


def test_without_a_mutation_the_same_schedules_pass() -> None:
    assert not caught()


def test_mutant_no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimFile, "datasync", lambda _self: None)
    assert caught()


def test_mutant_skip_the_directory_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimFiles, "sync_folder", lambda _self, _folder: None)
    assert caught()


def test_mutant_unlink_before_watermark(monkeypatch: pytest.MonkeyPatch) -> None:
    trim = SegmentSpool.trim

    def broken(self: SegmentSpool) -> None:
        monkeypatch.setattr(self, "save", lambda: None)
        trim(self)
        monkeypatch.delattr(self, "save")
        self.save()

    monkeypatch.setattr(SegmentSpool, "trim", broken)
    assert caught()


def test_mutant_recovered_tails_are_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: object, segment: ledger.Segment, found: recovery._Scan) -> bool:
        segment.size = found.end
        return True

    monkeypatch.setattr(recovery._Opener, "_settle_tail", broken)
    assert caught()


def test_mutant_a_header_names_what_is_not_safe_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger.Tokens, "durable", lambda self: [*self._durable, *self._pending])
    assert caught()


def test_mutant_a_refused_group_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    sync = writer.Writer.sync

    def broken(self: writer.Writer) -> int:
        try:
            return sync(self)
        except OSError:
            self._pending.clear()
            self.pending_records = 0
            raise

    monkeypatch.setattr(writer.Writer, "sync", broken)
    assert caught()


def test_mutant_the_oldest_gives_way_before_its_loss_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    give_up = SegmentSpool._give_up

    def broken(self: SegmentSpool, reason: str) -> bool:
        monkeypatch.setattr(self, "save", lambda: None)
        done = give_up(self, reason)
        monkeypatch.delattr(self, "save")
        return done

    monkeypatch.setattr(SegmentSpool, "_give_up", broken)
    assert caught()


def test_mutant_the_newest_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    oldest = SegmentSpool._oldest

    def broken(self: SegmentSpool) -> tuple[ledger.Epoch, ledger.Segment] | None:
        found = oldest(self)
        return (found[0], found[0].segments[-1]) if found is not None else None

    monkeypatch.setattr(SegmentSpool, "_oldest", broken)
    assert caught()
