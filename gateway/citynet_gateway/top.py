"""``citynet gateway top``: a running gateway on one page of the terminal, from its metrics on loopback."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Mapping
from urllib.error import URLError
from urllib.request import urlopen

from citynet.errors import CitynetError

_LINE = re.compile(r"^(\w+)(?:\{([^}]*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_PREFIX = "citynet_gateway_"
_HOME_AND_CLEAR = "\x1b[H\x1b[J"
TIMEOUT_S = 3.0

Samples = Mapping[tuple[str, str], float]  # by name (without prefix) and the values of its labels, joined by commas


def fetch(port: int) -> dict[tuple[str, str], float]:
    """The gateway's samples now. CitynetError if nobody answers there."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT_S) as answer:
            text = answer.read().decode()
    except (URLError, OSError) as error:
        raise CitynetError(
            f"no metrics on 127.0.0.1:{port}: is the gateway running, with this metrics_port? ({error})"
        ) from None
    return parse(text)


def parse(text: str) -> dict[tuple[str, str], float]:
    found = {}
    for line in text.splitlines():
        if (match := _LINE.match(line)) is not None:
            labels = ",".join(value for _, value in _LABEL.findall(match[2] or ""))
            found[match[1].removeprefix(_PREFIX), labels] = float(match[3])
    return found


def page(now: Samples, before: Samples, seconds: float, width: int = 80) -> str:
    """The page; rates are those of the last `seconds`, none where there is no `before`."""

    def value(name: str, labels: str = "") -> float:
        return now.get((name, labels), 0.0)

    def rate(name: str, labels: str = "") -> str:
        if not before or seconds <= 0:
            return ""
        return f"{(value(name, labels) - before.get((name, labels), 0.0)) / seconds:,.1f}/s"

    def connected(side: str) -> str:
        return "connected" if value("connected", side) else "NOT CONNECTED"

    streams = ("telemetry", "alarm")

    def row(text: str, *cells: str) -> str:
        return f"{text:14}" + "".join(f"{cell:>30}" for cell in cells)

    def counter(text: str, name: str) -> str:
        return row(text, *(f"{value(name, stream):,.0f} {rate(name, stream):>12}" for stream in streams))

    spool = f"spool {value('spool_bytes') / 2**20:,.1f} MiB"
    lines = [
        f"field {connected('field')}   uplink {connected('uplink')}   {spool}",
        "",
        row("", *streams),
        counter("accepted", "accepted_records_total"),
        counter("acknowledged", "acked_records_total"),
        row("waiting", *(f"{value('spool_records', stream):,.0f} {'':>12}" for stream in streams)),
        row("sync", *(_sync(now, stream) for stream in streams)),
    ]
    lines += ["", *_troubles(now)]
    return "\n".join(line[:width].rstrip() for line in lines)


def _sync(now: Samples, stream: str) -> str:
    count = now.get(("sync_seconds_count", stream), 0.0)
    return f"{1000 * now[('sync_seconds_sum', stream)] / count:.1f} ms" if count else "-"


def _troubles(now: Samples) -> list[str]:
    """What should be zero and is not."""
    words = {
        "parked_messages": "messages not answered: the spool refuses",
        "sync_failures_total": "writes that the storage refused",
        "damaged_records": "records damaged on this storage",
        "given_up_records": "records given up",
        "refused_messages_total": "messages of sources that cannot wait, refused",
        "rejected_total": "values and messages for the dead letter",
        "uplink_cuts_total": "uplink connections ended from outside",
        "uplink_connect_failures_total": "failed attempts to connect",
    }
    found = [
        f"{amount:>10,.0f}  {words[name]}{f' ({labels})' if labels else ''}"
        for (name, labels), amount in now.items()
        if name in words and amount
    ]
    return found or ["no troubles"]


def watch(port: int, interval_s: float) -> None:
    """Draw the page again and again until interrupted. CitynetError when the gateway goes."""
    before: Samples = {}
    drawn_s = 0.0
    while True:
        now, now_s = fetch(port), time.monotonic()
        width = shutil.get_terminal_size().columns
        sys.stdout.write(_HOME_AND_CLEAR + page(now, before, now_s - drawn_s, width) + "\n")
        sys.stdout.flush()
        before, drawn_s = now, now_s
        time.sleep(interval_s)
