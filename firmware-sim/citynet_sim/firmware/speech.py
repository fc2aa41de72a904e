"""What a report looks like on the wire of each protocol that pushes, and what has to be read from it (`told`). Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

from citynet.formats import CHIRPSTACK, SENML, THINGSBOARD
from citynet.reading import Reading
from citynet_sim.city import Device
from citynet_sim.firmware.identity import dev_eui, factor
from citynet_sim.firmware.machine import Report

RSSI_DBM, SNR_DB = -87.0, 7.5
STATION_ZONE = timezone(timedelta(hours=8))  # HJ 212's DataTime is local time; the gateway's `zone` says which
_SECOND_US = 1_000_000


def thingsboard(report: Report) -> tuple[str, bytes]:
    """Content type and payload; whole milliseconds."""
    return THINGSBOARD, json.dumps({"ts": report.time_us // 1000, "values": report.values}).encode()


def senml(device: Device, report: Report) -> tuple[str, bytes]:
    """Content type and payload, RFC 8428."""
    units = {metric.name: metric.unit for metric in device.metrics}
    pack: list[dict[str, object]] = [{"n": name, "u": units[name], "v": v} for name, v in report.values.items()]
    pack[0] = {"bn": f"{device.name}/", "bt": report.time_us / 1e6, **pack[0]}
    return SENML, json.dumps(pack).encode()


def chirpstack(device: Device, report: Report) -> tuple[str, bytes]:
    """Content type and payload of ChirpStack v4's event ``up``; the same report has the same `deduplicationId`."""
    event = {
        "deduplicationId": f"{dev_eui(device)}-{report.seq}-{report.time_us}",
        "time": datetime.fromtimestamp(report.time_us / 1e6, UTC).isoformat(timespec="milliseconds"),
        "deviceInfo": {"devEui": dev_eui(device), "deviceName": device.name},
        "fCnt": report.seq,
        "object": report.values,
        "rxInfo": [{"rssi": RSSI_DBM, "snr": SNR_DB}],
    }
    return CHIRPSTACK, json.dumps(event).encode()


def station_time(report: Report) -> datetime:
    """DataTime of a report: whole seconds of the station's clock, which knows no zone."""
    return datetime.fromtimestamp(report.time_us // _SECOND_US, STATION_ZONE).replace(tzinfo=None)


def factors(report: Report) -> dict[str, object]:
    """Values by the codes of HJ 212."""
    return {factor(metric): value for metric, value in report.values.items()}


def told(device: Device, report: Report, protocol: str) -> list[Reading]:
    """The readings that a gateway must make of a report."""
    name, time_us, values = device.name, report.time_us, dict(report.values)
    if protocol == "hj212":
        time_us -= time_us % _SECOND_US
    if protocol == "chirpstack":
        name = dev_eui(device)
        values |= {"rssi_dbm": RSSI_DBM, "snr_db": SNR_DB}
    return [Reading(name, metric, time_us, float(value)) for metric, value in values.items()]
