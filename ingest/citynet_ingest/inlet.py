"""An inlet: one lane's way in, from its MQTT session to parcels."""

from __future__ import annotations

import time
from typing import Protocol

import mqtt5

from citynet.runtime.settings import BrokerSettings
from citynet_ingest import metrics
from citynet_ingest.inbox import Weighed
from citynet_ingest.intake import Intake
from citynet_ingest.lanes import broker_filters_of, client_id, filters_of, shards_of
from citynet_ingest.parcel import Parcel, weigh
from citynet_ingest.session import Session
from citynet_ingest.settings import IngestSettings
from citynet_ingest.sources import Sources


class Owner(Protocol):
    """What an inlet tells the worker. Called on the event loop; must not block."""

    def opened(self, inlet: Inlet, *, session_present: bool) -> None:
        """A new connection: what is unacknowledged comes again."""

    def took(self, weight: int) -> None:
        """Messages came, with one read of the socket, that take so many bytes."""

    def deliver(self, parcels: list[Weighed]) -> None:
        """All that came with one read of the socket."""

    def closed(self, inlet: Inlet) -> None:
        """The connection is gone."""

    def failed(self, error: str) -> None:
        """A connection ended or could not be made."""

    def taken_over(self, inlet: Inlet) -> None:
        """Somebody else connected as this lane; the inlet waits until it is allowed to come back."""


class Inlet:
    """The session of one lane with its intake. `generation` counts its connections, 0 before the first."""

    def __init__(self, lane: int, owner: Owner, settings: IngestSettings, broker: BrokerSettings) -> None:
        self.lane = lane
        self.generation = 0
        self.inflight_bytes = 0
        self._owner = owner
        sources = Sources(settings.sources)
        self._intake = Intake(shards_of(lane), settings.direct_content_type, sources, lane)
        self._arriving: list[Parcel] = []
        self._reading_since = 0.0  # when the first message of this read of the socket was there
        self.session = Session(
            broker.endpoint(),
            client_id(lane),
            [*filters_of(lane), *sources.filters()],
            self,
            receive_maximum=settings.receive_maximum,
            keep_alive_s=settings.keep_alive_s,
            session_expiry_s=settings.session_expiry_s,
            retry_s_max=settings.retry_s_max,
            optional=broker_filters_of(lane),
        )

    @property
    def is_connected(self) -> bool:
        return self.session.is_connected

    def connected(self, generation: int, session_present: bool) -> None:
        self.generation = generation
        self._arriving = []
        self._owner.opened(self, session_present=session_present)

    def received(self, packet: mqtt5.PublishPacket, generation: int) -> None:
        if not self._reading_since:
            self._reading_since = time.perf_counter()
        self._arriving.append(self._intake.take(packet, generation, now_us()))

    def paused(self) -> None:
        if self._arriving:
            weighed = [weigh(parcel) for parcel in self._arriving]
            weight = sum([item[2] for item in weighed])
            self.inflight_bytes += weight  # QoS 0 as well: no receive maximum holds that back
            self._owner.took(weight)
            self._owner.deliver(weighed)
            metrics.DECODE_S.observe(time.perf_counter() - self._reading_since)
            self._arriving = []
        self._reading_since = 0.0

    def lost(self) -> None:
        self._arriving = []
        self._owner.closed(self)

    def failed(self, error: str) -> None:
        self._owner.failed(error)

    def taken_over(self) -> None:
        self._owner.taken_over(self)


def now_us() -> int:
    """The server's clock, µs since 1970."""
    return time.time_ns() // 1000
