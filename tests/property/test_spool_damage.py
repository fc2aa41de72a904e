"""Every truncation and a flipped bit in every byte of a spool: it starts, and declares exactly what is gone."""

from __future__ import annotations

import copy
from pathlib import Path
from random import Random

import pytest

from citynet.notes import LossNote, RawNote
from citynet.reading import Reading
from citynet.wire import TELEMETRY
from citynet_gateway.spool import SegmentSpool, SpoolSettings
from citynet_gateway.spool.segment import decode_header, parse_name, scan, seed_of
from tests.sim_files import SimFiles

FOLDER = Path("/spool")
SETTINGS = SpoolSettings(segment_bytes=500, bytes_max=64_000, tokens_max=4)
EPOCH = 5
RECORDS = 60


def make_spool() -> SimFiles:
    """One epoch of `RECORDS` records, 3 a frame, 2 frames a group, several segments; the claim is saved."""
    files = SimFiles()
    spool = SegmentSpool(FOLDER, SETTINGS, EPOCH, files)
    for first in range(1, RECORDS, 3):
        readings = [Reading("d", "m", first + k, float(first + k)) for k in range(2)]
        spool.append(TELEMETRY, readings, [RawNote("t", b"raw", str(first + 2))], first.to_bytes(8, "big"))
        if first % 2 == 0:
            spool.sync(TELEMETRY)
    spool.sync(TELEMETRY)
    spool.save()
    spool.close()
    return files


def recovered(files: SimFiles) -> tuple[set[int], set[int]]:
    """(records found, records declared lost) after opening; asserts that each is one or the other, once."""
    spool = SegmentSpool(FOLDER, SETTINGS, EPOCH + 1, files)
    found: list[int] = []
    lost: list[int] = []
    seq = 1
    while (run := spool.read(TELEMETRY, EPOCH, seq, 7, 10_000)) is not None:
        notes, readings, at = dict(run.notes), iter(run.readings), run.seq0
        while at <= run.last:
            item = notes.get(at - run.seq0) or next(readings)
            if isinstance(item, LossNote):
                assert item.first == at
                lost += range(item.first, item.last + 1)
                at = item.last + 1
                continue
            assert at == (item.time_us if isinstance(item, Reading) else int(item.reason))  # type: ignore[union-attr]
            found.append(at)
            at += 1
        seq = run.last + 1
    spool.close()
    assert sorted(found + lost) == list(range(1, RECORDS + 1))
    return set(found), set(lost)


def segments(files: SimFiles) -> list[Path]:
    return [FOLDER / name for name in files.names(FOLDER) if parse_name(name)]


def frames(files: SimFiles, path: Path) -> list[tuple[int, int, range]]:
    """(start, end, records) of every frame of a segment."""
    data = files.read(path, 0, files.size(path))
    name = parse_name(path.name)
    assert name is not None
    return [
        (raw.start, raw.end, range(raw.frame().seq0, raw.frame().last + 1))
        for raw in scan(data, decode_header(data).end, seed_of(name))
    ]


def test_the_spool_has_several_segments_and_no_damage() -> None:
    files = make_spool()
    assert len(segments(files)) >= 3
    assert recovered(files) == (set(range(1, RECORDS + 1)), set())


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_truncation_at_every_byte_loses_exactly_the_frames_behind_it(which: int) -> None:
    whole = make_spool()
    path = segments(whole)[which]
    layout = frames(whole, path)
    for size in range(whole.size(path)):
        files = copy.deepcopy(whole)
        handle = files.open(path)
        handle.truncate(size)
        handle.datasync()
        expected = {seq for _, end, records in layout if end > size for seq in records}
        assert recovered(files)[1] == expected, f"cut at {size}"
        assert recovered(files)[1] == expected, f"cut at {size}, opened again"


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_flipped_bit_in_every_byte_loses_exactly_its_frame(which: int, seed: int) -> None:
    whole = make_spool()
    path = segments(whole)[which]
    layout = frames(whole, path)
    random = Random(seed)
    for at in range(whole.size(path)):
        files = copy.deepcopy(whole)
        byte = files.read(path, at, 1)[0] ^ (1 << random.randrange(8))
        handle = files.open(path)
        handle.pwrite(bytes([byte]), at)
        handle.datasync()
        expected = {seq for start, end, records in layout if start <= at < end for seq in records}
        assert recovered(files)[1] == expected, f"seed {seed}: bit flipped at {at}"


def test_a_deleted_segment_is_declared_and_the_newest_one_as_a_regression() -> None:
    whole = make_spool()
    for number, path in enumerate(segments(whole)):
        files = copy.deepcopy(whole)
        expected = {seq for _, _, records in frames(files, path) for seq in records}
        files.unlink(path)
        assert recovered(files)[1] == expected
        spool = SegmentSpool(FOLDER, SETTINGS, EPOCH + 9, files)
        newest = number == len(segments(whole)) - 1
        assert spool.report.regression_records == (len(expected) if newest else 0)


def test_both_watermark_slots_broken_starts_from_the_segments() -> None:
    files = make_spool()
    spool = SegmentSpool(FOLDER, SETTINGS, EPOCH + 1, files)
    spool.ack(TELEMETRY, EPOCH, 3)
    spool.save()
    spool.close()
    handle = files.open(FOLDER / "watermark")
    for slot in (0, 65_536):
        handle.pwrite(b"\xff" * 24, slot)
    assert recovered(files) == (set(range(1, RECORDS + 1)), set())


def test_one_broken_watermark_slot_costs_one_save() -> None:
    files = make_spool()
    spool = SegmentSpool(FOLDER, SETTINGS, EPOCH + 1, files)
    spool.ack(TELEMETRY, EPOCH, 3)
    spool.save()  # generation 4, after those of both openings: the first slot
    spool.close()
    handle = files.open(FOLDER / "watermark")
    handle.pwrite(b"\xff" * 24, 0)
    again = SegmentSpool(FOLDER, SETTINGS, EPOCH + 2, files)
    assert [span.acked for span in again.spans(TELEMETRY) if span.epoch == EPOCH] == [0]
