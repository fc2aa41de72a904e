"""``citynet gateway check``: tries what a gateway needs, one after the other, and says in plain words what is wrong.

Nothing is changed: what is written to the disk is removed again, and the brokers see a connection that ends by itself.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import paho.mqtt.client as paho
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from citynet.errors import CitynetError
from citynet_gateway import certificate
from citynet_gateway.check import field
from citynet_gateway.check.finding import Finding
from citynet_gateway.mqtt import CONNECT_TIMEOUT_S, leave, new_client, tls_context, why_not_connected
from citynet_gateway.settings import Endpoint, GatewaySettings

FLUSHES = 20
FLUSH_MS_FAST = 0.2  # no card or disk is that fast: the flush did not get there
FLUSH_MS_SLOW = 500.0
SPACE_SPARE_BYTES = 64 << 20
CLOCK_KNOWN_FROM = datetime(2024, 1, 1, tzinfo=UTC)
_TIME_SYNC_MARK = Path("/run/systemd/timesync/synchronized")


def findings(settings: GatewaySettings) -> Iterator[Finding]:
    """Everything, in the order in which one would repair it."""
    yield clock(datetime.now(UTC))
    yield from disk(settings.data_dir, settings.spool_bytes_max)
    yield certificate_of("certificate", settings.uplink)
    if settings.local.tls is not None:
        yield certificate_of("field certificate", settings.local)
    yield broker("field broker", settings.local, f"{settings.id}-check-field")
    yield broker("uplink broker", settings.uplink, f"{settings.id}-check-uplink")
    yield from field.findings(settings)


def clock(now: datetime, sync_mark: Path = _TIME_SYNC_MARK) -> Finding:
    """Whether the clock can be right, and whether the network has set it."""
    if now < CLOCK_KNOWN_FROM:
        return Finding(
            "clock", "failed", f"the clock says {now:%Y-%m-%d}: it was never set; check network time (timedatectl)"
        )
    if sync_mark.parent.is_dir() and not sync_mark.exists():
        return Finding(
            "clock", "warning", "the network has not set the clock yet (timedatectl); is there a real-time clock?"
        )
    return Finding("clock", "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def disk(folder: Path, spool_bytes_max: int) -> Iterator[Finding]:
    """Whether the data folder can be written, how long a flush takes, whether the spool's cap fits."""
    probe = folder / f"check-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        flush_ms = _flush_ms(probe)
    except OSError as error:
        yield Finding("disk", "failed", f"{folder}: {error.strerror or error}: the gateway must be able to write there")
        return
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    if flush_ms < FLUSH_MS_FAST:
        yield Finding("disk flush", "warning", f"{flush_ms:.2f} ms: faster than storage is; does it honour flush?")
    elif flush_ms > FLUSH_MS_SLOW:
        yield Finding("disk flush", "warning", f"{flush_ms:.0f} ms: so long every alarm waits; an old or worn card?")
    else:
        yield Finding("disk flush", "ok", f"{flush_ms:.1f} ms (median of {FLUSHES})")
    used = sum(path.stat().st_size for path in (folder / "spool").glob("*.seg")) if (folder / "spool").is_dir() else 0
    free, needed = shutil.disk_usage(folder).free, spool_bytes_max - used + SPACE_SPARE_BYTES
    text = f"{free >> 20} MiB free, the spool may still take {(spool_bytes_max - used) >> 20} MiB"
    yield Finding(
        "disk space",
        "ok" if free >= needed else "warning",
        text if free >= needed else f"{text}: lower spool_bytes_max",
    )


def _flush_ms(path: Path) -> float:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    times = []
    try:
        for number in range(FLUSHES):
            os.pwrite(descriptor, bytes(4096), 4096 * number)
            began_s = time.perf_counter()
            os.fdatasync(descriptor)
            times.append((time.perf_counter() - began_s) * 1000)
    finally:
        os.close(descriptor)
    return sorted(times)[FLUSHES // 2]


def certificate_of(what: str, endpoint: Endpoint) -> Finding:
    """Whether the TLS files of a broker's endpoint can be read, fit together and are valid."""
    tls = endpoint.tls
    if tls is None:
        return Finding(what, "ok", "no TLS towards the server's broker")
    try:
        tls_context(endpoint.host, tls)
    except CitynetError as error:
        return Finding(what, "failed", str(error))
    now, own = datetime.now(UTC), tls.cert_file
    if trouble := certificate.trouble(own, now):
        return Finding(what, "warning" if " expires in " in trouble else "failed", trouble)
    if tls.ca_file is not None and (end := certificate.expiry(tls.ca_file)) <= now:
        text = f"the authority in {tls.ca_file} expired on {end:%Y-%m-%d}: what it signed is not accepted"
        return Finding(what, "warning", text)
    return Finding(what, "ok", f"{own}: valid until {certificate.expiry(own):%Y-%m-%d}" if own else "none of our own")


def broker(what: str, endpoint: Endpoint, client_id: str) -> Finding:
    """Connect and log in as the gateway does, under another client id so that a running gateway is not disturbed."""
    place = f"{endpoint.host}:{endpoint.port}"
    try:
        socket.getaddrinfo(endpoint.host, endpoint.port)
    except OSError:
        return Finding(
            what, "failed", f"the name {endpoint.host} is not known: check the spelling and the network's DNS"
        )
    try:
        client = new_client(endpoint, client_id, Random(0), manual_ack=False)  # noqa: S311  (no secret)
    except CitynetError as error:
        return Finding(what, "failed", str(error))
    answered, said = threading.Event(), [""]

    def on_connect(
        _client: paho.Client, _data: object, _flags: paho.ConnectFlags, reason: ReasonCode, _more: Properties | None
    ) -> None:
        said[0] = f"{place} refuses us: {reason}; check username and password_file" if reason.is_failure else ""
        answered.set()

    client.on_connect = on_connect
    client.on_disconnect = lambda *_: answered.set()
    said[0] = f"{place} hung up before it answered; a TLS listener, or a certificate that it does not accept?"
    try:
        client.connect(endpoint.host, endpoint.port, keepalive=15)
        client.loop_start()
        if not answered.wait(CONNECT_TIMEOUT_S):
            said[0] = f"{place} does not answer within {CONNECT_TIMEOUT_S:.0f} s"
    except (OSError, ValueError, ssl.SSLError) as error:
        said[0] = why_not_connected(endpoint, error, datetime.now(UTC))[1]
    finally:
        leave(client)
    return Finding(what, "failed", said[0]) if said[0] else Finding(what, "ok", place)
