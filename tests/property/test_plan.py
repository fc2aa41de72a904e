"""Planning a commit as a property: however a gateway cuts, repeats, skips and reorders its records, and however ingest cuts
what comes into commits, every sequence number is booked exactly once and the stored rows are the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import mqtt5
from hypothesis import given
from hypothesis import strategies as st

from citynet import formats, topics, wire
from citynet.notes import EventNote, LossNote, Note, RawNote
from citynet.reading import Reading
from citynet_ingest.commit import Commit
from citynet_ingest.intake import Intake
from citynet_ingest.parcel import Parcel
from citynet_ingest.plan import Planner
from citynet_ingest.registry import Registry
from citynet_ingest.sources import Sources
from citynet_ingest.state import CursorKey, Receipts, State
from citynet_ingest.watermarks import Watermarks
from citynet_rules.engine import Engine, SeriesInfo
from citynet_rules.spec import RuleSet
from tests.property.rules_streams import key, law, limit_rule

NOW_US = 1_800_000_000_000_000
GATEWAYS = ("gw-1", "gw-2")
RECORDS = 24  # a stream
RULES = RuleSet((limit_rule("x-high", levels={"blue": 1, "red": 3}, hysteresis=0.5, on_delay_s=2, off_delay_s=3),))
INTAKE = Intake(range(64), formats.THINGSBOARD, Sources([]))

KINDS = st.sampled_from(["good", "good", "good", "good", "absurd-time", "loss", "loss", "event", "raw"])
STREAM = st.lists(st.tuples(KINDS, st.integers(0, 4)), min_size=RECORDS, max_size=RECORDS)
SLICE = st.tuples(st.sampled_from(GATEWAYS), st.integers(1, RECORDS), st.integers(1, 9))
SLICES = st.lists(SLICE, max_size=40)
CUTS = st.sets(st.integers(0, 40), max_size=12)
Truth = dict[str, list[tuple[str, int]]]


def fresh() -> tuple[State, Registry]:
    """State of a worker that has seen nothing, and a registry that knows the series."""
    registry, engine = Registry(), Engine(RULES)
    infos = [SeriesInfo(n, f"{gateway}-d", "x", gateway) for n, gateway in enumerate(GATEWAYS, 1)]
    infos.append(SeriesInfo(9, "lift-1", "x", "lift-1"))
    registry.ids.update((f"{info.device}/{info.metric}", info.id) for info in infos)
    engine.bind(infos)
    return State(engine, {0: Receipts(8)}, Watermarks(0, 0)), registry


def batch(gateway: str, records: Sequence[tuple[str, int]], first: int, count: int, packet_id: int) -> Parcel:
    """Records `first`.. of a gateway as it would send them; losses side by side become one note."""
    last = min(first + count - 1, len(records))
    readings: list[Reading] = []
    notes: list[tuple[int, Note]] = []
    for seq in range(first, last + 1):
        kind, value = records[seq - 1]
        time_us = NOW_US - (100 - seq) * 1_000_000
        if kind == "loss" and notes and isinstance(notes[-1][1], LossNote) and notes[-1][1].last == seq - 1:
            notes[-1] = (notes[-1][0], LossNote(notes[-1][1].first, seq, "full"))
        elif kind == "loss":
            notes.append((seq - first, LossNote(seq, seq, "full")))
        elif kind == "event":
            notes.append((seq - first, EventNote(f"{gateway}-d", "door", "open", seq)))
        elif kind == "raw":
            notes.append((seq - first, RawNote("field/x", b"%d" % seq, "junk")))
        else:
            readings.append(Reading(f"{gateway}-d", "x", 5 if kind == "absurd-time" else time_us, float(value)))
    header = wire.Header(gateway, wire.TELEMETRY, 1, first, last - first + 1, len(records))
    return publish(topics.up(gateway), wire.encode(header, readings, notes), packet_id, wire.CBOR)


def publish(topic: str, body: bytes, packet_id: int, content_type: str, *, duplicate: bool = False) -> Parcel:
    packet = mqtt5.PublishPacket(
        topic, body, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=packet_id, duplicate=duplicate, content_type=content_type
    )
    return INTAKE.take(packet, 1, NOW_US)


@dataclass
class Books:
    """What a series of commits has written."""

    rows: Counter[tuple[int, int, float, int]] = field(default_factory=Counter)
    booked: dict[CursorKey, int] = field(default_factory=lambda: defaultdict(int))
    cursors: dict[CursorKey, int] = field(default_factory=dict)
    dead: Counter[tuple[str | None, int | None]] = field(default_factory=Counter)
    lost: Counter[tuple[str, int]] = field(default_factory=Counter)
    notes: Counter[tuple[str, int]] = field(default_factory=Counter)
    transitions: Counter[tuple[object, ...]] = field(default_factory=Counter)

    def write(self, commit: Commit) -> None:
        """Book a commit; its cursor steps must begin where the last one ended, and account for what they pass."""
        self.rows.update(commit.rows.rows())
        for step in commit.steps:
            at = (step.gateway, step.stream, step.epoch)
            assert step.before == self.cursors.get(at, 0) < step.seq
            assert step.stored + step.dead_lettered + step.lost + step.noted == step.seq - step.before
            self.cursors[at] = step.seq
            self.booked[at] += step.seq - step.before
        self.dead.update((letter.source, letter.seq) for letter in commit.dead)
        self.lost.update((loss.gateway, seq) for loss in commit.losses for seq in range(loss.first, loss.last + 1))
        self.notes.update((note.gateway, note.seq) for note in commit.notes)
        self.transitions.update(key(transition) for transition in commit.transitions)


def run(parcels: Sequence[Parcel], cuts: Iterable[int] = ()) -> Books:
    """Plan the parcels, a new commit before every position in `cuts`."""
    state, registry = fresh()
    books = Books()
    borders = sorted({0, len(parcels), *(cut for cut in cuts if cut < len(parcels))})
    for number, (first, last) in enumerate(pairwise(borders)):
        commit, answers = Planner(state, registry, number, 1).plan(parcels[first:last])
        assert answers.pubacks.get((0, 1), []) == [parcel.origin.packet_id for parcel in parcels[first:last]]
        books.write(commit)
        for (gateway, stream, epoch, _), ack in answers.acks.items():
            assert ack.seq == books.cursors.get((gateway, stream, epoch), 0), "never ahead of the commit, never behind"
    assert {k: v for k, v in state.cursors.items() if v} == books.cursors
    return books


def parcels_of(truth: Truth, slices: Sequence[tuple[str, int, int]]) -> list[Parcel]:
    return [batch(gw, truth[gw], first, count, n) for n, (gw, first, count) in enumerate(slices, 1)]


TRUTHS = st.fixed_dictionaries(dict.fromkeys(GATEWAYS, STREAM))


@law
@given(TRUTHS, SLICES, CUTS)
def test_every_number_is_booked_exactly_once(truth: Truth, slices: list[tuple[str, int, int]], cuts: set[int]) -> None:
    """Resends, overlaps, gaps, any order: the cursor goes as far as the slices reach without a hole, and no further."""
    reached = dict.fromkeys(GATEWAYS, 0)
    for gateway, first, count in slices:
        last = min(first + count - 1, RECORDS)
        if first <= reached[gateway] + 1 and last > reached[gateway]:
            reached[gateway] = last
    books = run(parcels_of(truth, slices), cuts)
    said = [(gw, seq, *truth[gw][seq - 1]) for gw in GATEWAYS for seq in range(1, reached[gw] + 1)]
    assert books.cursors == {(gw, wire.TELEMETRY, 1): seq for gw, seq in reached.items() if seq}
    assert books.booked == books.cursors
    assert books.rows == Counter(
        (GATEWAYS.index(gw) + 1, NOW_US - (100 - seq) * 1_000_000, float(value), 0)
        for gw, seq, kind, value in said if kind == "good"
    )  # fmt: skip
    assert books.dead == Counter((gw, seq) for gw, seq, kind, _ in said if kind in ("absurd-time", "raw"))
    assert books.lost == Counter((gw, seq) for gw, seq, kind, _ in said if kind == "loss")
    assert books.notes == Counter((gw, seq) for gw, seq, kind, _ in said if kind == "event")


@law
@given(TRUTHS, SLICES, CUTS)
def test_cutting_into_commits_changes_nothing(truth: Truth, slices: list[tuple[str, int, int]], cuts: set[int]) -> None:
    """Law 2 with delivery around it: rows, books, cursors and alerts are the same for every grouping into commits."""
    parcels = parcels_of(truth, slices)
    whole, cut = run(parcels), run(parcels, cuts)
    for name in ("rows", "booked", "cursors", "dead", "lost", "notes", "transitions"):
        assert getattr(whole, name) == getattr(cut, name), name


@law
@given(TRUTHS, SLICES, st.data())
def test_repeated_batches_change_nothing(truth: Truth, slices: list[tuple[str, int, int]], data: st.DataObject) -> None:
    parcels = parcels_of(truth, slices)
    repeated = list(parcels)
    for position in range(len(parcels) - 1, -1, -1):
        if data.draw(st.booleans()):
            repeated.insert(data.draw(st.integers(position + 1, len(repeated))), parcels[position])
    once, twice = run(parcels), run(repeated, range(0, 99, 3))
    # A repetition may close a gap that the first sending left, so more can be reached, but nothing twice.
    assert once.rows <= twice.rows
    assert all(count == 1 for counts in (twice.rows, twice.dead, twice.lost, twice.notes) for count in counts.values())
    assert twice.booked == twice.cursors


@law
@given(TRUTHS, CUTS)
def test_a_stale_copy_writes_nothing(truth: Truth, cuts: set[int]) -> None:
    everything = [(gw, first, 6) for gw in GATEWAYS for first in range(1, RECORDS + 1, 6)]
    parcels = parcels_of(truth, everything)
    state, registry = fresh()
    Planner(state, registry, 1, 1).plan(parcels)
    commit, answers = Planner(state, registry, 2, 1).plan([p for n, p in enumerate(parcels) if n not in cuts])
    assert commit.is_empty()
    assert all((ack.why, ack.seq) == ("duplicate", RECORDS) for ack in answers.acks.values())


@law
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2), st.booleans()), max_size=20))
def test_a_redelivery_of_a_direct_message_is_stored_once(messages: list[tuple[int, int, bool]]) -> None:
    """Same packet id, same body, duplicate flag: the same message. Without the flag it is another that looks like it."""
    state, registry = fresh()
    expected, duplicates, known = 0, 0, set()
    stored = found = 0
    for number, (packet_id, value, is_redelivery) in enumerate(messages):
        body = b'{"ts": %d, "values": {"x": %d}}' % (NOW_US // 1000, value)
        parcel = publish(topics.dev("lift-1"), body, packet_id, formats.THINGSBOARD, duplicate=is_redelivery)
        is_known = is_redelivery and (packet_id, value) in known
        known.add((packet_id, value))
        expected, duplicates = expected + (not is_known), duplicates + is_known
        commit, _ = Planner(state, registry, number, 1).plan([parcel])
        stored, found = stored + len(commit.rows), found + commit.tally.duplicates
        if len(known) > 6:
            return  # the receipts keep 8: what came before is forgotten on purpose
    assert (stored, found) == (expected, duplicates)


@law
@given(st.binary(max_size=200), st.sampled_from(["up", "dev", "hello", "status"]), st.text(max_size=20))
def test_any_bytes_become_a_parcel(body: bytes, kind: str, content_type: str) -> None:
    """An error out of here would cut the connection, and the broker would send the same bytes again for ever."""
    topic = {"up": topics.up, "dev": topics.dev, "hello": topics.hello, "status": topics.status}[kind]("gw-1")
    for declared in (content_type, "", wire.CBOR, wire.JSON, formats.SENML, formats.THINGSBOARD):
        parcel = publish(topic, body, 1, declared)
        state, registry = fresh()
        if not getattr(parcel, "readings", ()):
            Planner(state, registry, 1, 1).plan([parcel])


def test_receipts_keep_the_newest_of_equal_digests() -> None:
    """After a broker's restart packet ids come again: what is forgotten with age is the old one, not the new one like it."""
    receipts = Receipts(3)
    for digest in (b"a", b"b", b"a", b"c", b"d"):
        receipts.add(digest)
    assert b"a" in receipts
    assert b"b" not in receipts


def test_a_gap_is_answered_even_when_its_commit_also_moves_the_cursor() -> None:
    state, registry = fresh()
    records = [("good", 0)] * RECORDS
    parcels = [batch("gw-1", records, 15, 5, 1), batch("gw-1", records, 1, 10, 2)]
    _, answers = Planner(state, registry, 1, credit=7).plan(parcels)
    assert [(ack.seq, ack.why) for ack in answers.acks.values()] == [(10, "gap")]
    _, answers = Planner(state, registry, 2, credit=7).plan([batch("gw-1", records, 11, 9, 3)])
    assert [(ack.seq, ack.why) for ack in answers.acks.values()] == [(19, "commit")]
