"""Laws of what is pure in the Modbus driver: which registers are read together, what they mean, who is asked when."""

from __future__ import annotations

import itertools
import struct
from math import isfinite, isnan
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from citynet.quality import BAD, GOOD, OUT_OF_RANGE, UNCERTAIN
from citynet_gateway.drivers.modbus.codec import ValueCodec
from citynet_gateway.drivers.modbus.plan import Bounds, Span, apart, groups, plan
from citynet_gateway.drivers.modbus.schedule import PROBE_WAIT_S_MAX, Schedule, Task
from citynet_gateway.drivers.modbus.settings import WORDS, RegisterSettings, collisions
from citynet_gateway.drivers.polling import Backoff, Ticker

FORMATS = {"u16": "H", "i16": "h", "u32": "I", "i32": "i", "u64": "Q", "i64": "q", "f32": "f", "f64": "d"}


def register(metric: str = "m", **values: Any) -> RegisterSettings:
    return RegisterSettings.model_validate({"metric": metric, "address": 0, **values})


@st.composite
def maps(draw: st.DrawFn) -> list[RegisterSettings]:
    """Register maps without collisions."""
    drawn = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["holding", "input", "coil"]),
                st.integers(0, 400) | st.integers(65_000, 65_535),
                st.sampled_from(["u16", "u32", "f64", "bit"]),
                st.integers(0, 15),
            ),
            min_size=1,
            max_size=60,
        )
    )
    found: list[tuple[int, RegisterSettings]] = []
    for number, (table, address, kind, bit) in enumerate(drawn):
        if table == "coil":
            item = register(f"m{number}", table=table, address=address)
        elif kind == "bit":
            item = register(f"m{number}", table=table, address=address, type="bit", bit=bit)
        else:
            item = register(f"m{number}", table=table, address=min(address, 65_536 - WORDS[kind]), type=kind)
        if not list(collisions([*found, (number, item)])):
            found.append((number, item))
    return [item for _, item in found]


@given(maps(), st.integers(4, 125), st.integers(1, 2000), st.integers(0, 124))
def test_every_value_is_read_once_within_the_bounds(
    registers: list[RegisterSettings], registers_max: int, bits_max: int, gap_max: int
) -> None:
    bounds = Bounds(registers_max, bits_max, gap_max)
    spans = plan(registers, bounds)
    assert sorted(item.metric for span in spans for item in span.items) == sorted(item.metric for item in registers)
    for span in spans:
        assert 1 <= span.count <= bounds.longest(span.table)
        wanted = {item.address + k for item in span.items for k in range(item.width)}
        assert {min(wanted), max(wanted)} == {span.address, span.address + span.count - 1}, "no gap at either end"
        assert all(item.table == span.table for item in span.items)
        ordered = sorted(wanted)
        assert max((b - a - 1 for a, b in itertools.pairwise(ordered)), default=0) <= gap_max


@given(maps(), st.integers(4, 30), st.integers(0, 20))
def test_there_is_no_shorter_plan(registers: list[RegisterSettings], registers_max: int, gap_max: int) -> None:
    """Against the fewest requests that a search over all cuts finds."""
    registers = [item for item in registers if item.table == "holding"]
    assume(registers)
    bounds = Bounds(registers_max, 2000, gap_max)
    ordered = sorted(registers, key=lambda item: item.address)
    fewest = [0] + [len(ordered) + 1] * len(ordered)
    for end in range(1, len(ordered) + 1):
        for begin in range(end):
            part = ordered[begin:end]
            reach = max(item.address + item.width for item in part)
            near = all(b.address - (a.address + a.width) <= gap_max for a, b in itertools.pairwise(part))
            splits_a_register = begin and ordered[begin - 1].address == part[0].address
            if near and reach - part[0].address <= registers_max and not splits_a_register:
                fewest[end] = min(fewest[end], fewest[begin] + 1)
    assert len(plan(registers, bounds)) <= fewest[-1]


@given(maps())
def test_a_divided_request_reads_the_same_and_no_gap(registers: list[RegisterSettings]) -> None:
    for span in plan(registers, Bounds()):
        pieces = apart(span)
        assert sorted(item.metric for piece in pieces for item in piece.items) == sorted(
            item.metric for item in span.items
        )
        assert all(
            piece.count == item.width and piece.address == item.address for piece in pieces for item in piece.items
        )


def test_values_with_an_interval_of_their_own_make_a_group() -> None:
    slow, fast = register("slow", interval_s=60.0), register("fast", address=1)
    assert groups([slow, fast], 5.0) == {60.0: [slow], 5.0: [fast]}
    assert plan([], Bounds()) == []
    assert plan([slow], Bounds()) == [Span("holding", 0, 1, (slow,))]


# --- meaning


@given(
    st.sampled_from(sorted(FORMATS)), st.sampled_from(["big", "little"]), st.sampled_from(["big", "little"]), st.data()
)
def test_what_a_device_packs_is_what_is_read(kind: str, byte_order: str, word_order: str, data: st.DataObject) -> None:
    size = 8 * struct.calcsize(FORMATS[kind])
    number: float
    if kind[0] == "f":
        number = data.draw(st.floats(width=64 if kind == "f64" else 32, allow_nan=False, allow_infinity=False))
    elif kind[0] == "i":
        number = data.draw(st.integers(-(1 << (size - 1)), (1 << (size - 1)) - 1))
    else:
        number = data.draw(st.integers(0, (1 << size) - 1))
    packed = struct.pack(f">{FORMATS[kind]}", number)
    words = [packed[k : k + 2] for k in range(0, len(packed), 2)]
    if byte_order == "little":
        words = [word[::-1] for word in words]
    if word_order == "little":
        words = words[::-1]
    codec = ValueCodec(register(type=kind, byte_order=byte_order, word_order=word_order))
    value, quality = codec.decode([int.from_bytes(word, "big") for word in words])
    assert value == float(number)
    assert quality == (UNCERTAIN if kind[0] != "f" and abs(number) > 1 << 53 else GOOD)


@given(st.sampled_from(sorted(FORMATS)), st.floats(-1e300, 1e300), st.floats(-1e300, 1e300), st.data())
def test_nothing_that_is_no_number_is_good(kind: str, scale: float, offset: float, data: st.DataObject) -> None:
    assume(scale != 0)
    words = data.draw(st.lists(st.integers(0, 65_535), min_size=WORDS[kind], max_size=WORDS[kind]))
    value, quality = ValueCodec(register(type=kind, scale=scale, offset=offset)).decode(words)
    assert isfinite(value) or (isnan(value) and quality == BAD)


@pytest.mark.parametrize(
    ("values", "words", "expected"),
    [
        ({"scale": 0.1}, [3], (0.3, GOOD)),  # and not 0.30000000000000004
        ({"type": "i16", "scale": 0.1, "offset": -40}, [0xFFFF], (-40.1, GOOD)),
        ({"min": 0, "max": 5}, [6], (6.0, UNCERTAIN | OUT_OF_RANGE)),
        ({"min": 0, "max": 5}, [5], (5.0, GOOD)),
        ({"min": 2}, [1], (1.0, UNCERTAIN | OUT_OF_RANGE)),
        ({"type": "bit", "bit": 15}, [0x8000], (1.0, GOOD)),
        ({"type": "bit", "bit": 0}, [0xFFFE], (0.0, GOOD)),
        ({"table": "coil"}, [1], (1.0, GOOD)),
    ],
)
def test_scaled_and_judged(values: dict[str, Any], words: list[int], expected: tuple[float, int]) -> None:
    assert ValueCodec(register(**values)).decode(words) == expected


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"type": "f32"}, [0x7FC0, 0]),
        ({"type": "f32"}, [0x7F80, 0]),
        ({"type": "f32", "scale": 2.0}, [0xFF80, 0]),
        ({"type": "f64"}, [0x7FF8, 0, 0, 0]),
        ({"type": "i16", "invalid": [0x8000]}, [0x8000]),
        ({"type": "u32", "invalid": [0xFFFFFFFF]}, [0xFFFF, 0xFFFF]),
        ({"type": "u32", "scale": 1e300}, [0xFFFF, 0xFFFF]),
    ],
)
def test_what_is_no_number_is_bad(values: dict[str, Any], words: list[int]) -> None:
    value, quality = ValueCodec(register(**values)).decode(words)
    assert isnan(value)
    assert quality == BAD


# --- time


@given(st.floats(0.05, 100), st.lists(st.floats(0, 50), max_size=50))
def test_a_ticker_never_drifts(interval_s: float, delays_s: list[float]) -> None:
    ticker, now_s, passed = Ticker(interval_s, 1000.0), 1000.0, 0
    for taken, delay_s in enumerate(delays_s, 1):
        now_s = max(now_s, ticker.due_s) + delay_s
        passed += ticker.take(now_s)
        points = (ticker.due_s - 1000.0) / interval_s
        assert abs(points - round(points)) < 1e-6
        assert now_s < ticker.due_s <= now_s + interval_s * 1.000001
        assert round(points) == taken + passed, "every point is either taken or passed over"


@given(st.floats(0.1, 5), st.floats(0.1, 100), st.integers(1, 40), st.integers())
def test_patience_grows_to_a_bound(first_s: float, max_s: float, failures: int, seed: int) -> None:
    backoff = Backoff(first_s, max_s, Random(seed))
    pauses = [backoff.failed() for _ in range(failures)]
    top = max(first_s, max_s)
    for k, pause in enumerate(pauses):
        full = min(top, first_s * 2**k)
        assert 0.75 * full <= pause <= 1.25 * full
    backoff.worked()
    assert backoff.failed() <= 1.25 * first_s


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.5, 1.0, 3.0])), min_size=1, max_size=12, unique=True),
    st.sets(st.integers(0, 5)),
    st.floats(0.001, 0.05),
    st.integers(),
)
def test_dead_devices_delay_nobody_by_more_than_one_timeout(
    tasks: list[tuple[int, float]], dead: set[int], poll_s: float, seed: int
) -> None:
    """A bus in simulated time: a healthy device waits for the other healthy ones and for one timeout."""
    timeout_s, end_s = 0.5, 120.0
    schedule = Schedule([Task(*task) for task in tasks], 0.0, 1.0, 20.0, Random(seed))
    healthy = [task for task in tasks if task[0] not in dead]
    load = sum(poll_s / interval_s for _, interval_s in healthy)
    assume(load < 0.3)
    now_s, probes = 0.0, dict.fromkeys(dead, 0)
    settled_s = timeout_s * len(tasks) + 1.0  # until every dead device was found out
    last: dict[int, float] = {}
    while now_s < end_s:
        turn = schedule.next(now_s)
        if turn is None:
            now_s += max(0.001, schedule.wait_s(now_s, 1.0))
            continue
        device, interval_s = tasks[turn.task]
        assert turn.probe == (device in dead and probes[device] > 0)
        if device in dead:
            probes[device] += 1
            now_s += timeout_s
            schedule.failed(device, now_s)
            continue
        if turn.task in last and last[turn.task] > settled_s:
            late_s = now_s - last[turn.task] - interval_s
            assert late_s <= timeout_s + len(healthy) * poll_s + 0.01
        last[turn.task] = now_s
        now_s += poll_s
        schedule.answered(device)
    assert schedule.silent == len(dead & {device for device, _ in tasks})
    for device in dead & {device for device, _ in tasks}:
        assert 4 <= probes[device] <= 20, "asked again and again, but ever more rarely"


def test_a_probe_is_not_put_off_for_ever_by_a_bus_that_is_busy() -> None:
    schedule = Schedule([Task(0, 0.05), Task(1, 1.0)], 0.0, 1.0, 5.0, Random(1))
    now_s, probes = 0.0, []
    while now_s < 5 * PROBE_WAIT_S_MAX:
        turn = schedule.next(now_s)
        assert turn is not None, "a poll takes longer than its interval"
        now_s += 0.1
        if turn.task == 1:
            probes.append(now_s)
            schedule.failed(1, now_s)
        else:
            schedule.answered(0)
    assert 4 <= len(probes) <= 6


def test_a_poll_that_could_not_be_done_is_due_again() -> None:
    schedule = Schedule([Task(0, 60.0)], 0.0, 1.0, 5.0, Random(1))
    turn = schedule.next(0.0)
    assert turn is not None
    assert schedule.next(1.0) is None
    schedule.again(turn.task)
    assert schedule.next(1.0) == turn
    late = schedule.next(200.0)
    assert late is not None
    assert late.skipped == 2
