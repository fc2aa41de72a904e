"""The window against a model server over a link that loses, repeats and delays: every record arrives, in order."""

from __future__ import annotations

from random import Random

from hypothesis import given, note, settings
from hypothesis import strategies as st

from citynet.control import Ack, Stream
from citynet.wire import ALARM, TELEMETRY
from citynet_gateway.spool import Span
from citynet_gateway.window import Limits, Window

STEP_S = 0.5


class Link:
    """A simulated link and server; messages arrive after a while, in order, or not at all."""

    def __init__(self, random: Random, loss: float) -> None:
        self.random = random
        self.loss = loss
        self.up: list[tuple[int, int, int]] = []
        self.down: list[Ack] = []
        self.cursors: dict[int, int] = {}
        self.order: list[tuple[int, int]] = []

    def lost(self) -> bool:
        return self.random.random() < self.loss

    def reply(self, ack: Ack) -> None:
        self.down += [ack] * (0 if self.lost() else self.random.choice([1, 1, 2]))

    def serve(self) -> None:
        taken = self.random.randint(0, len(self.up))
        for epoch, first, last in self.up[:taken]:
            cursor = self.cursors.get(epoch, 0)
            if first > cursor + 1:
                self.reply(Ack(epoch, TELEMETRY, cursor, 4, "gap"))
                continue
            self.order += [(epoch, seq) for seq in range(max(first, cursor + 1), last + 1)]
            self.cursors[epoch] = max(cursor, last)
            self.reply(Ack(epoch, TELEMETRY, self.cursors[epoch], self.random.randint(0, 4), "commit"))
        del self.up[:taken]


class Sender:
    """The gateway's side: a spool of two epochs, as numbers only, and the window under test."""

    def __init__(self, random: Random) -> None:
        self.window = Window(Limits(3, 2.0, 8.0), random)
        self.random = random
        self.acked = {11: 0, 22: 0}
        self.lasts = {11: random.randint(0, 40), 22: random.randint(1, 40)}

    def spans(self) -> dict[Stream, list[Span]]:
        own = [Span(epoch, self.acked[epoch], last, epoch == 22) for epoch, last in self.lasts.items()]
        return {TELEMETRY: own, ALARM: [Span(22, 0, 0, True)]}

    def greet(self, step: int, now_s: float, link: Link) -> None:
        due = self.window.hello_due_at_s(self.spans())
        if step and self.random.random() >= 0.01 and (due is None or now_s < due):
            return
        connected = step == 0 or self.random.random() < 0.1
        hello = self.window.hello(f"r{step}", self.spans(), now_s, connected=connected)
        if not link.lost():
            for held in hello.held:
                link.reply(Ack(held.ep, held.st, link.cursors.get(held.ep, 0), 4, "hello", hello.ref))

    def listen(self, now_s: float, link: Link) -> None:
        for ack in link.down:
            verdict = self.window.take(ack, self.spans()[ack.st], now_s)
            if verdict.acked is not None:
                assert verdict.acked <= link.cursors[ack.ep], "trimmed what the server does not have"
                assert verdict.acked > self.acked[ack.ep]
                self.acked[ack.ep] = verdict.acked
        link.down.clear()

    def send(self, now_s: float, link: Link) -> None:
        stream = self.window.stream(TELEMETRY)
        while (want := stream.want(self.spans()[TELEMETRY])) is not None:
            end = min(want.last, want.seq + self.random.randint(0, 8))
            if not link.lost():
                link.up.append((want.epoch, want.seq, end))
            stream.sent(end, now_s)
        assert stream.inflight <= 3


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32), loss=st.sampled_from([0.0, 0.1, 0.4]))
def test_everything_arrives_once_and_in_order_over_a_lossy_link(seed: int, loss: float) -> None:
    note(f"seed {seed}")
    link, sender = Link(Random(seed), loss), Sender(Random(seed + 1))
    for step in range(3_000):
        link.loss = loss if step < 1_500 else 0.0  # in the end the link is good
        sender.greet(step, step * STEP_S, link)
        sender.listen(step * STEP_S, link)
        sender.send(step * STEP_S, link)
        link.serve()
        if sender.acked == sender.lasts:
            break
    assert sender.acked == sender.lasts, "stuck"
    assert link.order == [(epoch, seq) for epoch, last in sender.lasts.items() for seq in range(1, last + 1)]
