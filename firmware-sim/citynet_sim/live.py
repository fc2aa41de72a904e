"""A live run: the city's clock, its devices' links and its truth file, until its end or until told to stop.

At real-time speed devices sample when it is time, broker or not, as real ones do; what their buffers cannot
hold is lost and written down. At any other speed the city waits for the broker instead: its clock stands
while too much is under way.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from citynet.reading import Reading
from citynet.runtime import log
from citynet_sim import faults, topology
from citynet_sim.device import message
from citynet_sim.ledger import Ledger
from citynet_sim.passage import Parcel, Passage, packed
from citynet_sim.publisher import Link, LinkLimits
from citynet_sim.settings import SimSettings
from citynet_sim.simulation import Simulation
from citynet_sim.truth import LOST_STOPPED, LOST_TRANSPORT, End, TruthError, TruthWriter

DRAIN_STOPPED_S = 2.0  # after SIGTERM or SIGINT: wait so long for PUBACKs
CANCEL_S_MAX = 0.5  # and so long for the connections to close
ACK_LINE_S = 0.1  # acknowledgements become truth lines at this interval
TICK_S = 0.05  # devices are woken at this interval at most: a message leaves up to that long after its sample
SLICE_S = 1.0  # faster than time, a device's samples of so many seconds (wall clock) share a message
_BATCH_MAX = 500  # samples handed over at once, at most
_logger = log.get(__name__)


@dataclass(frozen=True, slots=True)
class LiveRun:
    """What to play: from `start_us` to `end_us` (None: without end) of the city's time (µs since 1970)."""

    simulation: Simulation
    settings: SimSettings
    start_us: int
    end_us: int | None
    truth_path: Path | None


class CityClock:
    """The city's time: `start_us` at the moment `monotonic_s`, `speed` city seconds a second."""

    def __init__(self, start_us: int, speed: float, monotonic_s: float) -> None:
        self._start_us = start_us
        self._speed = speed
        self._monotonic_s = monotonic_s

    def wait_s(self, time_us: int, monotonic_s: float) -> float:
        """Seconds from `monotonic_s` until the city's clock shows `time_us`; negative when it has passed."""
        return self._monotonic_s + (time_us - self._start_us) / 1e6 / self._speed - monotonic_s


class RunJournal:
    """Writes down what becomes of the messages, and lets the run wait for progress."""

    def __init__(self, writer: TruthWriter) -> None:
        self.progress = asyncio.Event()
        self.sent = 0
        self.readings = 0
        self._writer = writer
        self._ledger = Ledger()

    def sending(self, messages: list[tuple[int, str, list[Reading], bool]]) -> None:
        """These messages now go to the devices' buffers."""
        self._writer.messages(messages)
        self.sent += len(messages)
        self.readings += sum(len(readings) for _, _, readings, _ in messages)

    def acked(self, number: int) -> None:
        self._ledger.acknowledge(number)
        self.progress.set()

    def resent(self, numbers: list[int]) -> None:
        self._writer.resent(numbers)

    def lost(self, numbers: list[int], reason: str) -> None:
        self._writer.lost(numbers, reason)
        for number in numbers:
            self._ledger.give_up(number)
        self.progress.set()

    def flush(self) -> None:
        """Write what has been acknowledged since the last call."""
        if (news := self._ledger.news()) is not None:
            self._writer.acked(*news)

    async def keep_flushing(self) -> None:
        """`flush` at a steady interval, until cancelled."""
        while True:
            await asyncio.sleep(ACK_LINE_S)
            self.flush()

    def end(self) -> End:
        """Write the last lines."""
        self.flush()
        end = End(self.sent, self._ledger.acked, self._ledger.lost, self.readings)
        self._writer.end(end)
        return end


def header(simulation: Simulation, settings: SimSettings, start_us: int) -> dict[str, Any]:
    """The first line of a run's truth file (docs/truth-file.md)."""
    city = simulation.city
    devices = [device.registration(simulation.period_us(device) / 1e6) for device in city.devices]
    return {
        "seed": city.seed,
        "scenario": settings.scenario,
        "started_at_us": start_us,
        "speed": settings.speed,
        "city": settings.city.model_dump(exclude={"files"}),
        "sampling": settings.sampling.model_dump(),
        "gateways": list(city.parameters.gateways),
        "devices": devices,
        **({} if city.survey is None else {"files": {Path(p).name: sha for p, sha in city.survey.digests.items()}}),
        "topology": topology.edges(city, simulation.world.supply),
        "faults": [fault.to_json() for fault in simulation.faults],
        "incidents": faults.incidents(simulation.faults),
    }


async def play(run: LiveRun, stop: asyncio.Event) -> End:
    """Play the run until its end or until `stop` is set.

    Raises:
        TruthError: the truth file cannot be written; nothing is sent that is not written down.
    """
    writer = TruthWriter(run.truth_path)
    try:
        writer.header(header(run.simulation, run.settings, run.start_us))
        _log_started(run)
        end = await _play(run, RunJournal(writer), stop)
    except BaseExceptionGroup as group:
        first = group.subgroup(TruthError)
        if first is None:
            raise
        raise TruthError(str(_leaf(first))) from None
    finally:
        writer.close()
    _logger.info("sim-stopped", seed=run.settings.seed, **asdict(end))
    return end


async def _play(run: LiveRun, journal: RunJournal, stop: asyncio.Event) -> End:
    settings = run.settings
    buffer_max = settings.buffer_messages_max
    if settings.speed != 1.0:
        buffer_max = _room(settings) + _batch_max(settings)  # the city waits at this bound, so nothing ever gives way
    limits = LinkLimits(settings.in_flight_max, buffer_max, settings.ack_timeout_s)
    links = {
        gateway: Link(gateway, f"sim-{gateway}-{os.getpid()}", settings.broker, limits, journal)
        for gateway in settings.gateways
    }
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(link.run(), name=f"link-{name}") for name, link in links.items()]
        tasks.append(group.create_task(journal.keep_flushing(), name="flush"))
        await _produce(run, journal, links, stop)
        patience_s = DRAIN_STOPPED_S if stop.is_set() else settings.drain_s_max
        await _drain(journal, links, stop, patience_s)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=CANCEL_S_MAX)
        for link in links.values():
            link.stop()
        end = journal.end()
        for task in tasks:
            task.cancel()  # one that still waits for a broker that does not answer even a good-bye
    return end


async def _produce(run: LiveRun, journal: RunJournal, links: dict[str, Link], stop: asyncio.Event) -> None:
    """Sample when it is time and hand over, until the end or `stop`."""
    clock = CityClock(run.start_us, run.settings.speed, time.monotonic() + _lead_s(run))
    room, batch_max = _room(run.settings), _batch_max(run.settings)
    passage = Passage(run.simulation.city.seed, run.simulation.faults, run.settings.gateways, run.end_us)
    batch: list[Parcel] = []
    for parcel in _ended(_parcels(run, passage)):
        wait_s = _end_wait_s(run, clock) if parcel is None else clock.wait_s(parcel.arrival_us, time.monotonic())
        if wait_s > 0 or len(batch) >= batch_max or parcel is None:
            _hand_over(batch, run.settings.field_prefix, journal, links)
            batch = []
            if await _stopped_within(stop, max(wait_s, TICK_S) if wait_s > 0 else 0.0):
                _abandon(parcel, passage, journal)
                return
            while run.settings.speed != 1.0 and sum(link.waiting for link in links.values()) > room:
                journal.progress.clear()
                await _either(journal.progress, stop)
                if stop.is_set():
                    _abandon(parcel, passage, journal)
                    return
        if parcel is not None:
            batch.append(parcel)


def _parcels(run: LiveRun, passage: Passage) -> Iterator[Parcel]:
    """What reaches the links, in order. Faster than time several samples of a device share a message."""
    parcels = passage.through(run.simulation.samples(run.start_us, run.end_us))
    settings = run.settings
    if settings.speed <= 1.0 or settings.pack_max == 1:
        return parcels
    return packed(parcels, max(round(settings.speed * SLICE_S * 1e6), 1), settings.pack_max)


def _abandon(parcel: Parcel | None, passage: Passage, journal: RunJournal) -> None:
    """Write down what was under way at a stop and reaches nobody; what was not even sampled yet never was."""
    held = [] if parcel is None or parcel.arrival_us == parcel.samples[0].at_us else [parcel]
    numbered = list(enumerate([*held, *passage.under_way()], start=journal.sent + 1))
    journal.sending([(number, *_told(parcel)) for number, parcel in numbered])
    if numbered:
        journal.lost([number for number, _ in numbered], LOST_STOPPED)


def _told(parcel: Parcel) -> tuple[str, list[Reading], bool]:
    """A parcel as the truth file has it: gateway, readings, whether it is a copy."""
    readings = [reading for sample in parcel.samples for reading in sample.readings()]
    return parcel.samples[0].device.gateway, readings, parcel.is_copy


def _room(settings: SimSettings) -> int:
    """Messages under way beyond which a city that is not in real time waits: twice what may be in flight."""
    return 2 * settings.in_flight_max * len(settings.gateways)


def _batch_max(settings: SimSettings) -> int:
    """Samples handed over without looking at anything else."""
    return min(_BATCH_MAX, _room(settings))


def _ended(parcels: Iterator[Parcel]) -> Iterator[Parcel | None]:
    """The parcels, then None."""
    yield from parcels
    yield None


def _lead_s(run: LiveRun) -> float:
    """How long until the run's start: at real-time speed the city's time is the wall clock."""
    return run.start_us / 1e6 - time.time() if run.settings.speed == 1.0 else 0.0


def _end_wait_s(run: LiveRun, clock: CityClock) -> float:
    return 0.0 if run.end_us is None else clock.wait_s(run.end_us, time.monotonic())


def _hand_over(batch: list[Parcel], prefix: str, journal: RunJournal, links: dict[str, Link]) -> None:
    """Number the parcels, write them down, only then give them to their links; what a fault takes goes nowhere."""
    first = journal.sent + 1
    numbered = list(enumerate(batch, start=first))
    journal.sending([(number, *_told(parcel)) for number, parcel in numbered])
    if lost := [number for number, parcel in numbered if parcel.is_lost]:
        journal.lost(lost, LOST_TRANSPORT)
    for number, parcel in numbered:
        if not parcel.is_lost:
            links[parcel.samples[0].device.gateway].offer(message(number, parcel.samples, prefix))


async def _stopped_within(stop: asyncio.Event, seconds: float) -> bool:
    """Wait `seconds`, or until `stop` is set; always gives the other tasks a turn."""
    if seconds <= 0:
        await asyncio.sleep(0)
    else:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await stop.wait()
    return stop.is_set()


async def _either(one: asyncio.Event, other: asyncio.Event) -> None:
    """Wait until one of two events is set."""
    waits = [asyncio.ensure_future(one.wait()), asyncio.ensure_future(other.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _drain(journal: RunJournal, links: dict[str, Link], stop: asyncio.Event, patience_s: float) -> None:
    """Wait for outstanding PUBACKs, `patience_s` at most; a stop that comes meanwhile shortens it."""
    stopped_before = stop.is_set()
    deadline = time.monotonic() + patience_s
    while any(link.waiting for link in links.values()):
        journal.progress.clear()
        if stop.is_set() and not stopped_before:
            stopped_before = True
            deadline = min(deadline, time.monotonic() + DRAIN_STOPPED_S)
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                await (journal.progress.wait() if stopped_before else _either(journal.progress, stop))


def _leaf(group: BaseExceptionGroup[TruthError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _log_started(run: LiveRun) -> None:
    """Tell what is being played; the seed is always there."""
    city = run.simulation.city
    _logger.info(
        "sim-started", seed=city.seed, scenario=run.settings.scenario, devices=len(city.devices),
        series=city.series_count, gateways=",".join(city.parameters.gateways),
        messages_per_s=round(run.simulation.samples_per_s() * run.settings.speed, 1),
        broker=f"{run.settings.broker.host}:{run.settings.broker.port}",
    )  # fmt: skip
