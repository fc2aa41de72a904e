"""The spool on real files: bounds, order, de-duplication, trimming, quarantine."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from random import Random

import pytest

from citynet.notes import LossNote, RawNote
from citynet.reading import Reading
from citynet.wire import ALARM, TELEMETRY
from citynet_gateway.spool import SegmentSpool, SpoolFull, SpoolLocked, SpoolSettings
from citynet_gateway.spool.files import File, LocalFiles
from citynet_gateway.spool.inspect import SegmentView, inspect
from citynet_gateway.spool.reader import CHUNK_BYTES, READ_FAILURES_MAX
from citynet_gateway.spool.watermark import SLOT_BYTES
from tests.sim_files import SimFiles

SMALL = SpoolSettings(segment_bytes=600, bytes_max=40_000, tokens_max=4)
SIM = Path("/spool")


def readings(*values: float) -> list[Reading]:
    return [Reading("d", "m", int(value), value) for value in values]


def fill(spool: SegmentSpool, count: int, first: int = 0) -> None:
    """`count` frames of one reading, each synced."""
    for k in range(first, first + count):
        spool.append(TELEMETRY, readings(k), [], k.to_bytes(8, "big"))
        spool.sync(TELEMETRY)


def values(spool: SegmentSpool, epoch: int, seq: int = 1) -> list[float]:
    found: list[float] = []
    while (run := spool.read(TELEMETRY, epoch, seq, 100, 1 << 20)) is not None:
        found += [item.value for item in run.readings]
        seq = run.last + 1
    return found


def test_records_come_back_in_order_over_segments_and_openings(tmp_path: Path) -> None:
    spool = SegmentSpool(tmp_path, SMALL, 1)
    fill(spool, 30)
    spool.append(TELEMETRY, readings(99), [])  # never synced: nobody was told that it is safe
    spool.close()
    spool = SegmentSpool(tmp_path, SMALL, 2)
    fill(spool, 5, first=30)
    assert [(span.epoch, span.last, span.live) for span in spool.spans(TELEMETRY)] == [(1, 30, False), (2, 5, True)]
    assert values(spool, 1) == [float(k) for k in range(30)]
    assert values(spool, 2) == [float(k) for k in range(30, 35)]
    assert values(spool, 1, seq=17) == [float(k) for k in range(16, 30)]
    spool.close()


def test_nothing_unsynced_is_read(tmp_path: Path) -> None:
    spool = SegmentSpool(tmp_path, SMALL, 1)
    spool.append(TELEMETRY, readings(1), [])
    assert spool.read(TELEMETRY, 1, 1, 10, 1000) is None
    assert spool.sync(TELEMETRY) == 1
    assert values(spool, 1) == [1.0]
    spool.close()


def test_a_run_respects_its_bounds_and_may_split_a_frame(tmp_path: Path) -> None:
    spool = SegmentSpool(tmp_path, SpoolSettings(), 1)
    spool.append(TELEMETRY, readings(*range(10)), [RawNote("t", b"x" * 5_000, "r")] * 3)
    spool.sync(TELEMETRY)
    sizes, seq = [], 1
    while (run := spool.read(TELEMETRY, 1, seq, 4, 6_000)) is not None:
        sizes.append((len(run.readings), len(run.notes)))
        seq = run.last + 1
    assert sizes == [(4, 0), (4, 0), (2, 1), (0, 1), (0, 1)]
    spool.close()


def test_acknowledged_segments_go_and_the_newest_stays(tmp_path: Path) -> None:
    spool = SegmentSpool(tmp_path, SMALL, 1)
    fill(spool, 40)
    before = len(list(tmp_path.glob("*.seg")))
    spool.ack(TELEMETRY, 1, 40)
    assert before >= 3
    assert len(list(tmp_path.glob("*.seg"))) == 1
    assert spool.used_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.seg"))
    spool.close()
    spool = SegmentSpool(tmp_path, SMALL, 2)
    assert [(span.epoch, span.acked, span.last) for span in spool.spans(TELEMETRY)] == [(1, 40, 40), (2, 0, 0)]
    assert [(c.accepted, c.acked) for c in spool.claims() if c.ep == 1] == [(40, 40)]
    spool.close()


def test_recent_tokens_survive_the_segments_they_came_with(tmp_path: Path) -> None:
    for epoch in range(1, 5):
        spool = SegmentSpool(tmp_path, SMALL, epoch)
        if epoch == 1:
            fill(spool, 40)
            spool.ack(TELEMETRY, 1, 40)
        assert [spool.knows(TELEMETRY, k.to_bytes(8, "big")) for k in range(35, 41)] == [
            False,
            True,
            True,
            True,
            True,
            False,
        ]
        spool.close()


def test_full_refuses_with_numbers_keeps_room_for_alarms_and_resumes(tmp_path: Path) -> None:
    spool = SegmentSpool(tmp_path, SMALL, 1)
    with pytest.raises(SpoolFull, match=r"spool full: telemetry holds \d+ of 35000 bytes"):
        fill(spool, 10_000)
    held = spool.spans(TELEMETRY)[-1].last
    assert 0 < held < 10_000
    assert spool.used_bytes <= SMALL.bytes_max
    spool.append(ALARM, readings(1), [])
    assert spool.sync(ALARM) == 1
    spool.ack(TELEMETRY, 1, held)
    fill(spool, 5)
    assert spool.spans(TELEMETRY)[-1].last == held + 5
    spool.close()


def test_pending_is_bounded_too(tmp_path: Path) -> None:
    spool = SegmentSpool(tmp_path, SpoolSettings(pending_bytes_max=2_000), 1)
    for _ in range(3):
        spool.append(TELEMETRY, [], [RawNote("t", b"x" * 500, "r")])
    with pytest.raises(SpoolFull):
        spool.append(TELEMETRY, [], [RawNote("t", b"x" * 500, "r")])
    assert spool.pending(TELEMETRY) == 3
    spool.close()


def test_one_process_at_a_time_and_never_an_old_epoch(tmp_path: Path) -> None:
    spool = SegmentSpool(tmp_path, SMALL, 7)
    with pytest.raises(SpoolLocked, match="another gateway process"):
        SegmentSpool(tmp_path, SMALL, 8)
    fill(spool, 1)
    spool.close()
    with pytest.raises(ValueError, match="epoch 7 was used before"):
        SegmentSpool(tmp_path, SMALL, 7)


def test_a_refused_opening_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a positive number"):
        SegmentSpool(tmp_path, SMALL, 0)
    SegmentSpool(tmp_path, SMALL, 1).close()


def test_only_the_last_finished_epochs_stay_in_the_books(tmp_path: Path) -> None:
    for epoch in range(1, 30):
        spool = SegmentSpool(tmp_path, SMALL, epoch)
        fill(spool, 1)
        for span in spool.spans(TELEMETRY):
            spool.ack(TELEMETRY, span.epoch, span.last)
        spool.close()
    spool = SegmentSpool(tmp_path, SMALL, 99)
    known = [span.epoch for span in spool.spans(TELEMETRY)]
    assert known == [*range(29 - len(known) + 2, 30), 99]
    assert SMALL.finished_epochs_max <= len(known) <= SMALL.finished_epochs_max + 3
    spool.close()


def test_a_damaged_segment_is_kept_aside_when_it_is_done_with(tmp_path: Path) -> None:
    spool = SegmentSpool(tmp_path, SMALL, 1)
    fill(spool, 40)
    spool.close()
    oldest = min(tmp_path.glob("*.seg"))
    data = bytearray(oldest.read_bytes())
    data[-5] ^= 1
    oldest.write_bytes(data)
    spool = SegmentSpool(tmp_path, SMALL, 2)
    assert len(values(spool, 1)) == 39
    assert spool.lost_records == 1
    spool.ack(TELEMETRY, 1, 40)
    assert [path.name for path in (tmp_path / "quarantine").iterdir()] == [oldest.name]
    spool.close()


@pytest.mark.parametrize("operation", ["pwrite", "datasync", "create", "sync_folder"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_refused_write_promises_nothing_loses_nothing_and_resumes(operation: str, code: int) -> None:
    files = SimFiles()
    spool = SegmentSpool(SIM, SMALL, 1, files)
    fill(spool, 0 if operation in ("create", "sync_folder") else 2)
    safe = spool.synced(TELEMETRY)
    files.faults[operation] = [OSError(code, "planned")] * 3
    spool.append(TELEMETRY, readings(7), [])
    for _ in range(3):
        with pytest.raises(OSError, match="planned"):
            spool.sync(TELEMETRY)
        assert spool.synced(TELEMETRY) == safe
    spool.append(TELEMETRY, readings(8), [])
    assert spool.sync(TELEMETRY) == safe + 2
    assert values(spool, 1)[-2:] == [7.0, 8.0]


def test_after_a_failed_sync_the_descriptor_is_not_trusted_again() -> None:
    files = SimFiles()
    spool = SegmentSpool(SIM, SMALL, 1, files)
    fill(spool, 2)
    files.faults["datasync"] = [OSError(errno.EIO, "planned")]
    spool.append(TELEMETRY, readings(7), [])
    with pytest.raises(OSError, match="planned"):
        spool.sync(TELEMETRY)
    spool.sync(TELEMETRY)
    assert spool.poisoned == 1
    assert len([name for name in files.names(SIM) if name.endswith(".seg")]) == 2


@pytest.mark.parametrize("operation", ["open", "truncate", "datasync"])
def test_records_never_take_room_twice(operation: str) -> None:
    """What a failed sync leaves in a file is cut off before its records go into the next one, or the cap would not hold."""
    files = SimFiles()
    spool = SegmentSpool(SIM, SMALL, 1, files)
    fill(spool, 2)
    spool.append(TELEMETRY, readings(*range(7, 17)), [])
    counted = spool.used_bytes
    files.faults["datasync"] = [OSError(errno.EIO, "planned")]
    files.faults.setdefault(operation, []).append(OSError(errno.EIO, "planned"))
    for _ in range(2):
        with pytest.raises(OSError, match="planned"):
            spool.sync(TELEMETRY)
    names = [name for name in files.names(SIM) if name.endswith(".seg")]
    assert sum(files.size(SIM / name) for name in names) <= counted
    assert spool.sync(TELEMETRY) == 12
    files.cut(Random(1))
    spool = SegmentSpool(SIM, SMALL, 2, files)
    assert len(values(spool, 1)) == 12
    names = [name for name in files.names(SIM) if name.endswith(".seg")]
    assert sum(files.size(SIM / name) for name in names) == spool.used_bytes


def test_an_unreadable_segment_is_tried_again_and_then_declared() -> None:
    files = SimFiles()
    spool = SegmentSpool(SIM, SMALL, 1, files)
    fill(spool, 3)
    files.faults["read"] = [OSError(errno.EIO, "planned")] * READ_FAILURES_MAX
    for _ in range(READ_FAILURES_MAX - 1):
        with pytest.raises(OSError, match="planned"):
            spool.read(TELEMETRY, 1, 1, 10, 1000)
    run = spool.read(TELEMETRY, 1, 1, 10, 1000)
    assert run is not None
    assert run.notes == [(0, LossNote(1, 3, "segment_damaged"))]


def test_what_the_server_forgot_and_we_no_longer_have_is_declared(tmp_path: Path) -> None:
    spool = SegmentSpool(tmp_path, SMALL, 1)
    fill(spool, 40)
    spool.ack(TELEMETRY, 1, 40)
    run = spool.read(TELEMETRY, 1, 11, 100, 1 << 20)
    assert run is not None
    position, loss = run.notes[0]
    assert (position, loss.first, loss.reason) == (0, 11, "server_regression")  # type: ignore[union-attr]
    assert run.last == 40
    assert len(run.readings) == 40 - loss.last  # type: ignore[union-attr]
    spool.close()


def test_inspection_reads_only(tmp_path: Path) -> None:
    spool = SegmentSpool(tmp_path, SMALL, 1)
    fill(spool, 40)
    spool.ack(TELEMETRY, 1, 30)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    state = inspect(SegmentView(LocalFiles(), tmp_path), verify=True)
    assert [(item.acked, item.last, item.held, item.lost) for item in state] == [(30, 40, 10, 0)]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    spool.close()


def test_frames_larger_than_what_is_read_at_a_time_come_back_whole(tmp_path: Path) -> None:
    spool = SegmentSpool(tmp_path, SpoolSettings(segment_bytes=8 << 20), 1)
    sizes = [10, 3 * CHUNK_BYTES, CHUNK_BYTES, 0, 9 * CHUNK_BYTES, 1, CHUNK_BYTES - 40]
    for number, size in enumerate(sizes):
        spool.append(TELEMETRY, readings(number), [RawNote("t", b"\xc7\x9e" * (size // 2), str(number))])
        spool.sync(TELEMETRY)
    found, seq = [], 1
    while (run := spool.read(TELEMETRY, 1, seq, 1, 1 << 20)) is not None:
        found += [item.value for item in run.readings]
        found += [float(note.reason) for _, note in run.notes if isinstance(note, RawNote)]
        seq = run.last + 1
    assert found == [float(k // 2) for k in range(2 * len(sizes))]
    spool.close()


def test_a_reader_that_has_caught_up_goes_on_as_the_segment_grows(tmp_path: Path) -> None:
    spool = SegmentSpool(tmp_path, SpoolSettings(), 1)
    for number in range(4 * CHUNK_BYTES // 100):
        fill_one = readings(number, number + 0.5)
        spool.append(TELEMETRY, fill_one, [])
        if number % 50 == 0:
            spool.sync(TELEMETRY)
            run = spool.read(TELEMETRY, 1, spool.synced(TELEMETRY) - 1, 10, 1 << 20)
            assert run is not None
            assert [item.value for item in run.readings] == [number, number + 0.5]
    spool.close()


def test_damage_longer_than_what_is_read_at_a_time_is_passed_over(tmp_path: Path) -> None:
    spool = SegmentSpool(tmp_path, SpoolSettings(segment_bytes=8 << 20), 1)
    for number in range(60):
        spool.append(TELEMETRY, [], [RawNote("t", b"x" * 20_000, str(number))])
        spool.sync(TELEMETRY)
    spool.close()
    (path,) = tmp_path.glob("telemetry-*.seg")
    data = bytearray(path.read_bytes())
    data[5 * 20_060 : 50 * 20_060] = b"\xc7\x9e\x00\x00" * (45 * 20_060 // 4)
    path.write_bytes(data)
    spool = SegmentSpool(tmp_path, SpoolSettings(segment_bytes=8 << 20), 2)
    kept, lost, seq = [], [], 1
    while (run := spool.read(TELEMETRY, 1, seq, 7, 1 << 20)) is not None:
        kept += [int(note.reason) for _, note in run.notes if isinstance(note, RawNote)]
        lost += [note for _, note in run.notes if isinstance(note, LossNote)]
        seq = run.last + 1
    (loss,) = lost
    assert kept == [*range(loss.first - 1), *range(loss.last, 60)]
    assert 44 <= loss.span <= 46
    spool.close()


class CountingFiles(LocalFiles):
    """Notes which files are read."""

    def __init__(self) -> None:
        self.read_names: list[str] = []

    def read(self, path: Path, offset: int, size: int) -> bytes:
        self.read_names.append(path.name)
        return super().read(path, offset, size)


def test_opening_reads_the_newest_segment_only_however_many_epochs_there_are(tmp_path: Path) -> None:
    for epoch in range(1, 13):
        spool = SegmentSpool(tmp_path, SMALL, epoch)
        fill(spool, 12, first=12 * epoch)
        spool.close()
    files = CountingFiles()
    spool = SegmentSpool(tmp_path, SMALL, 13, files)
    assert len([name for name in files.read_names if name.endswith(".seg")]) == 1
    assert [span.last for span in spool.spans(TELEMETRY)] == [12] * 12 + [0]
    assert [values(spool, epoch) for epoch in range(1, 13)] == [
        [float(12 * epoch + k) for k in range(12)] for epoch in range(1, 13)
    ]
    assert [spool.knows(TELEMETRY, (155 - k).to_bytes(8, "big")) for k in range(5)] == [True] * 4 + [False]
    spool.close()


def test_an_old_epoch_whose_last_segment_has_changed_is_scanned_again(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        spool = SegmentSpool(tmp_path, SMALL, epoch)
        fill(spool, 12)
        spool.close()
    last = max(path for path in tmp_path.glob("*.seg") if f"-{1:014x}-" in path.name)
    last.write_bytes(last.read_bytes()[:-3])
    spool = SegmentSpool(tmp_path, SMALL, 4)
    assert spool.report.regression_records == 1
    assert values(spool, 1) == [float(k) for k in range(11)]
    spool.close()


def losses(spool: SegmentSpool, epoch: int, seq: int = 1) -> list[LossNote]:
    found: list[LossNote] = []
    while (run := spool.read(TELEMETRY, epoch, seq, 100, 1 << 20)) is not None:
        found += [note for _, note in run.notes if isinstance(note, LossNote)]
        seq = run.last + 1
    return found


def fill_up(spool: SegmentSpool) -> int:
    """Until a source that can wait is refused; the number of records."""
    count = 0
    try:
        while True:
            fill(spool, 1, first=count)
            count += 1
    except SpoolFull:
        return count


def test_for_a_source_that_cannot_wait_the_oldest_telemetry_gives_way(tmp_path: Path) -> None:
    spool = SegmentSpool(tmp_path, SMALL, 1)
    count = fill_up(spool)
    for k in range(count, count + 200):
        spool.append(TELEMETRY, readings(k), [], waits=False)
        spool.sync(TELEMETRY)
        assert spool.used_bytes <= SMALL.bytes_max
        with pytest.raises(SpoolFull):  # what gave way is not taken by those that can wait
            spool.append(TELEMETRY, readings(-1), [])
    (loss,) = losses(spool, 1)
    assert (loss.first, loss.reason) == (1, "spool_full")
    assert spool.given_up == {"spool_full": loss.span}
    assert values(spool, 1) == [float(k) for k in range(loss.last, count + 200)]
    spool.close()
    spool = SegmentSpool(tmp_path, SMALL, 2)
    assert losses(spool, 1) == [loss]
    spool.ack(TELEMETRY, 1, loss.last)
    assert losses(spool, 1, loss.last + 1) == []
    spool.close()


def test_an_alarm_that_cannot_wait_displaces_telemetry(tmp_path: Path) -> None:
    spool = SegmentSpool(tmp_path, SMALL, 1)
    fill_up(spool)
    for k in range(400):
        spool.append(ALARM, readings(k), [], waits=False)
        spool.sync(ALARM)
    assert losses(spool, 1)[0].reason == "spool_full"
    assert spool.synced(ALARM) == 400
    assert spool.used_bytes <= SMALL.bytes_max
    spool.close()


def test_a_loss_is_written_on_a_full_disk_before_anything_is_removed(tmp_path: Path) -> None:
    files = SimFiles()
    spool = SegmentSpool(SIM, SMALL, 1, files)
    count = fill_up(spool)
    assert files.size(SIM / "watermark") >= 2 * SLOT_BYTES, "room for the loss is taken beforehand"
    files.faults["datasync"] = [OSError(errno.EIO, "planned")]
    before = set(files.names(SIM))
    assert not spool.give_way()
    assert set(files.names(SIM)) == before
    assert losses(spool, 1) == []
    assert spool.give_way()
    files.kill()
    spool = SegmentSpool(SIM, SMALL, 2, files)
    (loss,) = losses(spool, 1)
    assert values(spool, 1) == [float(k) for k in range(loss.last, count)]


def test_what_is_too_old_is_given_up_by_a_clock_that_nobody_sets(tmp_path: Path) -> None:
    now_s = 0.0
    settings = SpoolSettings(segment_bytes=600, bytes_max=40_000, tokens_max=4, age_max_s=100)
    spool = SegmentSpool(tmp_path, settings, 1, monotonic_s=lambda: now_s)
    fill(spool, 30)
    now_s = 90.0
    fill(spool, 30, first=30)
    spool.expire()
    assert losses(spool, 1) == []
    spool.save()
    spool.close()
    spool = SegmentSpool(tmp_path, settings, 2, monotonic_s=lambda: 5_000.0 + now_s)  # another boot
    spool.expire()
    assert losses(spool, 1) == []
    now_s = 101.0
    spool.expire()
    (loss,) = losses(spool, 1)
    assert (loss.first, loss.reason) == (1, "spool_age")
    assert 10 < loss.last <= 30
    assert values(spool, 1) == [float(k) for k in range(loss.last, 60)]
    spool.close()


def test_without_its_header_a_segment_keeps_the_one_that_has_its_tokens() -> None:
    """A power cut may take a new segment's header and leave its frames: the tokens of before are in the segment before it."""
    files = SimFiles()
    settings = SpoolSettings(segment_bytes=600, bytes_max=40_000, tokens_max=40)
    spool = SegmentSpool(SIM, settings, 1, files)
    fill(spool, 20)
    spool.close()
    newest = max(name for name in files.names(SIM) if name.endswith(".seg"))
    files.open(SIM / newest).pwrite(bytes(8), 0)
    for epoch in (2, 3):
        spool = SegmentSpool(SIM, settings, epoch, files)
        spool.ack(TELEMETRY, 1, 20)
        spool.save()
        assert all(spool.knows(TELEMETRY, k.to_bytes(8, "big")) for k in range(20))
        spool.close()
    spool = SegmentSpool(SIM, settings, 4, files)
    fill(spool, 1, first=20)  # a segment with a header: now nothing else is needed
    spool.ack(TELEMETRY, 4, 1)
    spool.trim()
    spool.close()
    assert len([name for name in files.names(SIM) if name.endswith(".seg")]) == 1
    spool = SegmentSpool(SIM, settings, 5, files)
    assert all(spool.knows(TELEMETRY, k.to_bytes(8, "big")) for k in range(21))
    spool.close()


PAGE_BYTES = 4_096


class PageCounter(LocalFiles):
    """Counts the pages that become dirty with every write, as the kernel's `write_bytes` does."""

    def __init__(self) -> None:
        self.pages = 0

    def create(self, path: Path) -> File:
        return CountedFile(super().create(path), self)

    def open(self, path: Path) -> File:
        return CountedFile(super().open(path), self)


class CountedFile:
    def __init__(self, file: File, counter: PageCounter) -> None:
        self._file, self._counter = file, counter
        self.datasync, self.truncate, self.close = file.datasync, file.truncate, file.close

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        self._counter.pages += (offset + len(data) - 1) // PAGE_BYTES - offset // PAGE_BYTES + 1
        return self._file.pwrite(data, offset)


def test_write_amplification_of_a_city_at_the_benchs_rate(tmp_path: Path) -> None:
    """8,000 readings a second in messages of ten, synced once a second and acknowledged, over several segments."""
    files = PageCounter()
    spool = SegmentSpool(tmp_path, SpoolSettings(), 1, files)
    payload_bytes, before = 0, files.pages
    for second in range(32):
        for message in range(800):
            rows = [
                Reading("station-1", f"m{k}", 1_767_225_600_000_000 + message, (message + k) % 997 / 8)
                for k in range(10)
            ]
            values = {item.metric: item.value for item in rows}
            payload_bytes += len(json.dumps({"ts": rows[0].time_us // 1_000, "values": values}, separators=(",", ":")))
            spool.append(TELEMETRY, rows, [], (800 * second + message).to_bytes(8, "big"))
        spool.sync(TELEMETRY)
        spool.ack(TELEMETRY, 1, spool.synced(TELEMETRY))
        if second % 5 == 0:
            spool.save()
    spool.close()
    assert files.pages > before
    assert (files.pages - before) * PAGE_BYTES <= 1.5 * payload_bytes
