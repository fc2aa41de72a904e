"""The uplink's window: pure decisions on simulated time."""

from __future__ import annotations

from random import Random

import pytest

from citynet.control import Ack, AckCause, Hello, Stream
from citynet.wire import ALARM, TELEMETRY
from citynet_gateway.spool import Span
from citynet_gateway.window import HELD_MAX, Limits, Outcome, Verdict, Want, Window

EP, OLD = 77, 33
LIMITS = Limits(batches_max=3, resend_after_s=4.0, resend_after_s_max=16.0)


class Timeline:
    """A window, the spool's spans beside it, and a server's words; telemetry unless said otherwise."""

    def __init__(self, *spans: Span) -> None:
        self.window = Window(LIMITS, Random(5))
        self.spans: dict[Stream, list[Span]] = {TELEMETRY: list(spans), ALARM: [Span(EP, 0, 0, True)]}
        self.now_s = 100.0
        self.hello = Hello("", [])

    def connect(self) -> Timeline:
        self.hello = self.window.hello("ref-1", self.spans, self.now_s, connected=True)
        return self

    def ask_again(self, ref: str) -> None:
        self.hello = self.window.hello(ref, self.spans, self.now_s, connected=False)

    def answer(self, *seqs: int, credit: int = 10, stream: Stream = TELEMETRY) -> list[Verdict]:
        """Answers to the hello for the epochs of the stream, oldest first."""
        held = [item for item in self.hello.held if item.st == stream]
        assert len(held) == len(seqs)
        return [
            self.ack(seq, "hello", item.ep, credit, self.hello.ref, stream)
            for item, seq in zip(held, seqs, strict=True)
        ]

    def ack(
        self,
        seq: int,
        why: AckCause = "commit",
        ep: int = EP,
        credit: int = 10,
        ref: str = "",
        stream: Stream = TELEMETRY,
    ) -> Verdict:
        verdict = self.window.take(Ack(ep, stream, seq, credit, why, ref), self.spans[stream], self.now_s)
        if verdict.acked is not None:
            self.spans[stream] = [
                Span(item.epoch, verdict.acked, item.last, item.live) if item.epoch == ep else item
                for item in self.spans[stream]
            ]
        return verdict

    def want(self, stream: Stream = TELEMETRY) -> Want | None:
        return self.window.stream(stream).want(self.spans[stream])

    def send(self, records: int) -> tuple[int, int] | None:
        """Send one batch if the window wants one: (epoch, first)."""
        want = self.want()
        if want is None:
            return None
        self.window.stream(TELEMETRY).sent(min(want.last, want.seq + records - 1), self.now_s)
        return want.epoch, want.seq

    def due_in_s(self) -> float | None:
        due = self.window.hello_due_at_s(self.spans)
        return None if due is None else due - self.now_s


def test_nothing_is_sent_before_the_hello_is_answered() -> None:
    line = Timeline(Span(EP, 0, 100, True))
    assert line.send(10) is None
    line.connect()
    assert line.send(10) is None
    assert line.answer(0) == [Verdict(Outcome.ANSWERED)]
    assert line.send(10) == (EP, 1)


def test_the_hello_names_every_epoch_and_stream() -> None:
    line = Timeline(Span(OLD, 4, 9, False), Span(EP, 0, 0, True)).connect()
    assert [(item.ep, item.st, item.first, item.last) for item in line.hello.held] == [
        (EP, ALARM, 1, 0), (OLD, TELEMETRY, 5, 9), (EP, TELEMETRY, 1, 0),
    ]  # fmt: skip


def test_a_hello_is_bounded_and_keeps_the_oldest_and_the_live_epoch() -> None:
    spans = [Span(1000 + k, 0, 5, False) for k in range(2 * HELD_MAX)]
    line = Timeline(*spans, Span(EP, 0, 0, True)).connect()
    named = [item.ep for item in line.hello.held if item.st == TELEMETRY]
    assert len(line.hello.held) <= HELD_MAX
    assert (named[0], named[-1]) == (1000, EP)


def test_window_and_credit_bound_what_is_in_flight() -> None:
    line = Timeline(Span(EP, 0, 1000, True)).connect()
    line.answer(0)
    assert [line.send(10) for _ in range(5)] == [(EP, 1), (EP, 11), (EP, 21), None, None]
    line.ack(10, credit=2)
    assert line.send(10) is None  # two are in flight and two is the credit
    line.ack(20, credit=2)
    assert line.send(10) == (EP, 31)


def test_an_acknowledgement_is_cumulative_and_trims_once() -> None:
    line = Timeline(Span(EP, 0, 100, True)).connect()
    line.answer(0)
    for _ in range(3):
        line.send(10)
    assert line.ack(20) == Verdict(Outcome.ADVANCED, 20)
    assert line.ack(20) == Verdict(Outcome.REPEATED)
    assert line.ack(10) == Verdict(Outcome.REPEATED)
    assert line.window.stream(TELEMETRY).inflight == 1


def test_unknown_epochs_and_future_numbers_are_ignored() -> None:
    line = Timeline(Span(EP, 0, 100, True)).connect()
    line.answer(0)
    line.send(10)
    assert line.ack(5, ep=999) == Verdict(Outcome.UNKNOWN_EPOCH)
    assert line.ack(101) == Verdict(Outcome.FUTURE)
    assert line.window.stream(TELEMETRY).inflight == 1


def test_of_an_older_epoch_the_server_may_hold_more_than_this_storage_kept() -> None:
    line = Timeline(Span(OLD, 0, 40, False), Span(EP, 0, 0, True)).connect()
    assert line.answer(50, 0)[0] == Verdict(Outcome.ADVANCED, 40)
    assert line.want() is None


def test_a_gap_is_answered_by_going_back_once() -> None:
    line = Timeline(Span(EP, 0, 100, True)).connect()
    line.answer(0)
    for _ in range(3):
        line.send(10)
    assert line.ack(10).outcome is Outcome.ADVANCED
    assert line.ack(10, "gap").outcome is Outcome.WENT_BACK  # the second batch was lost
    assert line.send(10) == (EP, 11)
    assert line.ack(10, "gap").outcome is Outcome.REPEATED  # the third one's answer
    assert line.send(10) == (EP, 21)
    assert line.ack(30).outcome is Outcome.ADVANCED
    assert line.send(10) == (EP, 31)


def test_older_epochs_go_first_and_alone() -> None:
    line = Timeline(Span(OLD, 0, 15, False), Span(EP, 0, 50, True)).connect()
    line.answer(0, 0)
    assert line.send(10) == (OLD, 1)
    assert line.send(10) == (OLD, 11)
    assert line.send(10) is None  # the next epoch waits until this one is acknowledged
    line.ack(15, ep=OLD)
    assert line.send(10) == (EP, 1)


def test_a_server_that_lost_its_state_gets_everything_behind_its_cursor_again() -> None:
    line = Timeline(Span(EP, 60, 100, True)).connect()
    assert line.answer(25) == [Verdict(Outcome.REGRESSED)]
    assert line.send(100) == (EP, 26)  # the spool declares what it no longer has
    assert line.ack(60) == Verdict(Outcome.ADVANCED)  # nothing to trim: the watermark was there already
    assert line.ack(100) == Verdict(Outcome.ADVANCED, 100)


def test_a_gap_below_the_watermark_is_a_regression_too() -> None:
    line = Timeline(Span(EP, 60, 100, True)).connect()
    line.answer(60)
    line.send(10)
    assert line.ack(25, "gap").outcome is Outcome.REGRESSED
    assert line.send(10) == (EP, 26)


def test_a_finished_epoch_that_the_server_forgot_comes_back_first() -> None:
    line = Timeline(Span(OLD, 30, 30, False), Span(EP, 60, 100, True)).connect()
    line.answer(0, 60)
    assert line.send(100) == (OLD, 1)


def test_only_the_answer_to_the_latest_hello_may_go_back() -> None:
    line = Timeline(Span(EP, 60, 100, True)).connect()
    assert line.ack(25, "hello", ref="an older one").outcome is Outcome.REPEATED
    assert line.send(1) is None
    line.answer(60)
    assert line.send(1) == (EP, 61)


def test_silence_is_answered_by_a_hello_with_backoff_and_jitter() -> None:
    line = Timeline(Span(EP, 0, 100, True)).connect()
    line.answer(0)
    line.answer(0, stream=ALARM)
    assert line.due_in_s() is None  # nothing is owed
    line.send(10)
    waits = []
    for attempt in range(4):
        due = line.due_in_s()
        assert due is not None
        waits.append(due)
        line.now_s += due
        line.ask_again(f"again-{attempt}")
        assert line.due_in_s() is not None  # the hello itself may get lost
        line.answer(0)
        line.answer(0, stream=ALARM)
        assert line.send(10) == (EP, 1)
    assert waits[0] <= 5.0
    assert all(0.75 * base <= wait <= 1.25 * base for base, wait in zip([4, 8, 16, 16], waits, strict=True)), waits
    line.ack(10)
    line.send(10)
    assert line.due_in_s() == LIMITS.resend_after_s  # progress ends the backoff


def test_a_server_without_credit_is_asked_again() -> None:
    line = Timeline(Span(EP, 0, 100, True)).connect()
    line.answer(0, credit=0)
    line.answer(0, stream=ALARM)
    assert line.send(10) is None
    assert line.due_in_s() == pytest.approx(LIMITS.resend_after_s, rel=0.3)


def test_a_broken_connection_forgets_what_was_in_flight() -> None:
    line = Timeline(Span(EP, 0, 100, True)).connect()
    line.answer(0)
    line.send(10)
    line.window.part()
    assert line.due_in_s() is None
    assert line.send(10) is None
    line.connect()
    line.answer(10)
    assert line.send(10) == (EP, 11)
