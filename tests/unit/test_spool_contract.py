"""What every spool keeps to, whatever it is built on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from citynet.notes import LossNote, RawNote
from citynet.reading import Reading
from citynet.wire import ALARM, TELEMETRY
from citynet_gateway.spool import SegmentSpool, Spool, SpoolFull, SpoolLocked, SpoolSettings
from citynet_gateway.spool.sqlite import SqliteSpool

SMALL = SpoolSettings(segment_bytes=600, bytes_max=40_000, tokens_max=4)
Open = Callable[..., Spool]


@pytest.fixture(params=[SegmentSpool, SqliteSpool], ids=["segments", "sqlite"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    def open_spool(epoch: int, settings: SpoolSettings = SMALL, **more: object) -> Spool:
        found: Spool = request.param(tmp_path / "spool", settings, epoch, **more)
        return found

    return open_spool


def readings(*values: float) -> list[Reading]:
    return [Reading("d", "m", int(value), value) for value in values]


def token(number: int) -> bytes:
    return number.to_bytes(8, "big")


def fill(spool: Spool, count: int, first: int = 0, *, waits: bool = True) -> None:
    for k in range(first, first + count):
        spool.append(TELEMETRY, readings(k), [], token(k), waits=waits)
        spool.sync(TELEMETRY)


def contents(spool: Spool, epoch: int, seq: int = 1) -> list[float | LossNote]:
    """Values and losses from `seq` on, losses of several reads joined."""
    found: list[float | LossNote] = []
    while (run := spool.read(TELEMETRY, epoch, seq, 7, 1 << 20)) is not None:
        notes, values = dict(run.notes), iter(run.readings)
        position = 0
        while position < run.count:
            note = notes.get(position)
            found.append(note if isinstance(note, LossNote) else next(values).value)
            position += note.span if note is not None else 1
        seq = run.last + 1
    return found


def test_records_come_back_in_order_over_openings(opened: Open) -> None:
    spool = opened(1)
    fill(spool, 30)
    spool.append(TELEMETRY, readings(99), [])  # never synced
    spool.close()
    spool = opened(2)
    fill(spool, 5, first=30)
    assert [(span.epoch, span.last, span.live) for span in spool.spans(TELEMETRY)] == [(1, 30, False), (2, 5, True)]
    assert contents(spool, 1) == [float(k) for k in range(30)]
    assert contents(spool, 2, 3) == [32.0, 33.0, 34.0]
    assert contents(spool, 1, 17) == [float(k) for k in range(16, 30)]
    spool.close()


def test_nothing_unsynced_is_read_and_pending_is_counted(opened: Open) -> None:
    spool = opened(1)
    assert spool.append(TELEMETRY, readings(1, 2), []) == 2
    assert (spool.pending(TELEMETRY), spool.appended(TELEMETRY), spool.synced(TELEMETRY)) == (2, 2, 0)
    assert spool.pending_bytes(TELEMETRY) > 0
    assert spool.read(TELEMETRY, 1, 1, 10, 1000) is None
    assert spool.sync(TELEMETRY) == 2
    assert (spool.pending(TELEMETRY), spool.pending_bytes(TELEMETRY)) == (0, 0)
    assert contents(spool, 1) == [1.0, 2.0]
    spool.close()


def test_a_run_keeps_its_bounds_and_may_split_a_frame(opened: Open) -> None:
    spool = opened(1, SpoolSettings())
    spool.append(TELEMETRY, readings(*range(10)), [RawNote("t", b"x" * 5_000, "r")] * 3)
    spool.sync(TELEMETRY)
    sizes, seq = [], 1
    while (run := spool.read(TELEMETRY, 1, seq, 4, 6_000)) is not None:
        sizes.append((len(run.readings), len(run.notes)))
        seq = run.last + 1
    assert sizes == [(4, 0), (4, 0), (2, 1), (0, 1), (0, 1)]
    spool.close()


def test_tokens_are_remembered_over_openings_and_acknowledgements(opened: Open) -> None:
    for epoch in range(1, 4):
        spool = opened(epoch)
        if epoch == 1:
            fill(spool, 40)
            spool.ack(TELEMETRY, 1, 40)
            spool.save()
        assert [spool.knows(TELEMETRY, token(k)) for k in range(35, 41)] == [False, True, True, True, True, False]
        assert not spool.knows(ALARM, token(38))
        spool.close()


def test_acknowledgements_are_kept_and_free_room(opened: Open) -> None:
    spool = opened(1)
    fill(spool, 40)
    before = spool.used_bytes
    spool.ack(TELEMETRY, 1, 30)
    spool.save()
    assert spool.used_bytes < before
    assert [(claim.accepted, claim.acked) for claim in spool.claims() if claim.accepted] == [(40, 30)]
    with pytest.raises(ValueError, match="never accepted"):
        spool.ack(TELEMETRY, 1, 41)
    spool.close()
    spool = opened(2)
    assert [(span.epoch, span.acked, span.last) for span in spool.spans(TELEMETRY)] == [(1, 30, 40), (2, 0, 0)]
    assert contents(spool, 1, 31) == [float(k) for k in range(30, 40)]
    spool.close()


def test_what_the_server_forgot_and_we_no_longer_have_is_declared(opened: Open) -> None:
    spool = opened(1)
    fill(spool, 40)
    spool.ack(TELEMETRY, 1, 40)
    spool.save()
    loss, *rest = contents(spool, 1, 11)
    assert isinstance(loss, LossNote)
    assert (loss.first, loss.reason) == (11, "server_regression")
    assert loss.last + len(rest) == 40
    spool.close()


def test_full_refuses_who_can_wait_and_resumes(opened: Open) -> None:
    spool = opened(1)
    with pytest.raises(SpoolFull, match=r"spool full: telemetry holds \d+ of 35000 bytes"):
        fill(spool, 10_000)
    held = spool.synced(TELEMETRY)
    spool.append(ALARM, readings(1), [])
    assert spool.sync(ALARM) == 1
    spool.ack(TELEMETRY, 1, held)
    spool.save()
    fill(spool, 5)
    assert spool.synced(TELEMETRY) == held + 5
    spool.close()


def test_the_oldest_gives_way_to_who_cannot_wait_and_is_declared_ever_after(opened: Open) -> None:
    spool = opened(1)
    fill(spool, 1_500, waits=False)
    assert spool.used_bytes <= SMALL.bytes_max
    loss, *rest = contents(spool, 1)
    assert isinstance(loss, LossNote)
    assert (loss.first, loss.reason) == (1, "spool_full")
    assert rest == [float(k) for k in range(loss.last, 1_500)]
    assert dict(spool.given_up) == {"spool_full": loss.span}
    with pytest.raises(SpoolFull):
        spool.append(TELEMETRY, readings(1), [])
    spool.close()
    spool = opened(2)
    assert contents(spool, 1) == [loss, *rest]
    spool.ack(TELEMETRY, 1, loss.last - 1)
    spool.save()
    assert contents(spool, 1, loss.last) == [LossNote(loss.last, loss.last, "spool_full"), *rest]
    spool.close()


def test_age(opened: Open) -> None:
    now_s = 0.0
    settings = SpoolSettings(segment_bytes=600, bytes_max=40_000, tokens_max=4, age_max_s=100)
    spool = opened(1, settings, monotonic_s=lambda: now_s)
    fill(spool, 30)
    now_s = 60.0
    fill(spool, 30, first=30)
    spool.expire()
    assert contents(spool, 1) == [float(k) for k in range(60)]
    now_s = 110.0
    spool.expire()
    loss, *rest = contents(spool, 1)
    assert isinstance(loss, LossNote)
    assert (loss.first, loss.reason) == (1, "spool_age")
    assert 10 < loss.last <= 30
    assert rest == [float(k) for k in range(loss.last, 60)]
    spool.close()


def test_pending_is_bounded(opened: Open) -> None:
    spool = opened(1, SpoolSettings(pending_bytes_max=2_000))
    for _ in range(3):
        spool.append(TELEMETRY, [], [RawNote("t", b"x" * 500, "r")])
    for waits in (True, False):
        with pytest.raises(SpoolFull):
            spool.append(TELEMETRY, [], [RawNote("t", b"x" * 500, "r")], waits=waits)
    spool.close()


def test_one_process_at_a_time_and_never_an_old_epoch(opened: Open) -> None:
    spool = opened(7)
    with pytest.raises(SpoolLocked, match="another gateway process"):
        opened(8)
    fill(spool, 1)
    spool.close()
    with pytest.raises(ValueError, match="epoch 7 was used before"):
        opened(7)
    opened(9).close()  # a refused opening gave the lock back


def test_only_the_last_finished_epochs_stay_in_the_books(opened: Open) -> None:
    for epoch in range(1, 30):
        spool = opened(epoch)
        fill(spool, 1)
        for span in spool.spans(TELEMETRY):
            spool.ack(TELEMETRY, span.epoch, span.last)
        spool.save()
        spool.close()
    spool = opened(99)
    known = [span.epoch for span in spool.spans(TELEMETRY)]
    assert known == [*range(29 - len(known) + 2, 30), 99]
    assert SMALL.finished_epochs_max <= len(known) <= SMALL.finished_epochs_max + 3
    spool.close()


def test_a_database_that_is_none_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "spool.sqlite").write_bytes(b"not a database at all" * 100)
    spool = SqliteSpool(tmp_path, SMALL, 1)
    fill(spool, 3)
    assert (tmp_path / "damaged-spool.sqlite").exists()
    spool.close()


def test_a_damaged_row_is_declared(tmp_path: Path) -> None:
    spool = SqliteSpool(tmp_path, SMALL, 1)
    fill(spool, 5)
    with spool._db:
        spool._db.execute("UPDATE frame SET body = CAST(x'00' || substr(body, 2) AS BLOB) WHERE seq0 = 3")
    assert contents(spool, 1) == [0.0, 1.0, LossNote(3, 3, "segment_damaged"), 3.0, 4.0]
    assert spool.lost_records == 1
    spool.close()
