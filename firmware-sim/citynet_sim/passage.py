"""From samples to messages: what transport faults do on the way, and how many samples share a message. Pure.

The fate of a message is that of `transport`, so a live run has the same losses, copies and delays as a file of the same seed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from citynet_sim import transport
from citynet_sim.faults import Fault
from citynet_sim.simulation import Sample


@dataclass(frozen=True, slots=True)
class Parcel:
    """Samples of one device that travel as one message and reach their gateway's broker at `arrival_us` (the city's time).

    `is_lost`: a transport fault takes it. `is_copy`: one made it once more.
    """

    arrival_us: int
    samples: tuple[Sample, ...]
    is_lost: bool = False
    is_copy: bool = False


class Passage:
    """Parcels of one sample each, in the order of arrival, out of samples in the order of their moments.

    What is under way when the samples end arrives with the last of them, at `end_us`. What is under way when somebody stops
    asking is in `under_way`.
    """

    def __init__(self, seed: int, faults: Sequence[Fault], gateways: Iterable[str], end_us: int | None) -> None:
        self._seed = seed
        self._end_us = end_us
        self._faults = {gateway: found for gateway in gateways if (found := transport.acting(faults, gateway))}
        self._heap: list[tuple[int, int, Parcel]] = []
        self._entered = 0

    def through(self, samples: Iterable[Sample]) -> Iterator[Parcel]:
        """The parcels."""
        for sample in samples:
            while self._heap and self._heap[0][0] <= sample.at_us:
                yield heapq.heappop(self._heap)[2]
            if transport.touches(self._faults.get(sample.device.gateway, ()), sample.at_us):
                for parcel in self._fate(sample):
                    self._entered += 1
                    heapq.heappush(self._heap, (parcel.arrival_us, self._entered, parcel))
            else:
                yield Parcel(sample.at_us, (sample,))
        for parcel in self.under_way():
            yield parcel if self._end_us is None else replace(parcel, arrival_us=min(parcel.arrival_us, self._end_us))

    def under_way(self) -> list[Parcel]:
        """What has not arrived, in the order in which it would; nothing is under way any more."""
        found = [parcel for _, _, parcel in sorted(self._heap)]
        self._heap = []
        return found

    def _fate(self, sample: Sample) -> list[Parcel]:
        at_us = np.array([sample.at_us], np.int64)
        faults = self._faults[sample.device.gateway]
        position, arrival = transport.deliver(self._seed, sample.device.name, at_us, faults)
        if not len(position):
            return [Parcel(sample.at_us, (sample,), is_lost=True)]
        return [Parcel(int(when), (sample,), is_copy=number > 0) for number, when in enumerate(arrival.tolist())]


def packed(parcels: Iterable[Parcel], slice_us: int, samples_max: int) -> Iterator[Parcel]:
    """Parcels of the same slice of the city's time and the same device as one, of `samples_max` samples at most.

    Slices are cut by the city's time alone, so the same seed packs the same. A pack arrives at the end of its slice; lost
    ones and copies are packed for themselves.
    """
    held: dict[tuple[int, bool, bool], list[Sample]] = {}
    number: int | None = None
    for parcel in parcels:
        if number is not None and parcel.arrival_us // slice_us > number:
            yield from _released(held, (number + 1) * slice_us)
        number = parcel.arrival_us // slice_us if number is None else max(number, parcel.arrival_us // slice_us)
        key = (parcel.samples[0].device.index, parcel.is_lost, parcel.is_copy)
        samples = held.setdefault(key, [])
        samples += parcel.samples
        if len(samples) >= samples_max:
            yield Parcel(parcel.arrival_us, tuple(held.pop(key)), parcel.is_lost, parcel.is_copy)
    if number is not None:
        yield from _released(held, (number + 1) * slice_us)


def _released(held: dict[tuple[int, bool, bool], list[Sample]], arrival_us: int) -> Iterator[Parcel]:
    for (_, is_lost, is_copy), samples in held.items():
        yield Parcel(arrival_us, tuple(samples), is_lost, is_copy)
    held.clear()
