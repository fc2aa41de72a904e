"""How a device of the city is called where other names are usual: numbers of stations, EUIs, addresses, codes of factors.

All of it follows from the device's name, so a gateway can be configured before the device is there.
"""

from __future__ import annotations

import hashlib

from citynet_sim.city import Device

# Factors of HJ 212-2017 (table B) for what the city's stations measure; others get a code of their own.
_FACTORS = {
    "pm25_ug_m3": "a34004", "pm10_ug_m3": "a34002", "so2_ug_m3": "a21026", "no2_ug_m3": "a21004", "co_mg_m3": "a21005",
    "o3_ug_m3": "a05024", "air_temperature_c": "a01001", "wind_m_s": "a01007",
}  # fmt: skip


def _digits(name: str, count: int) -> str:
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()[:count]


def station_number(device: Device) -> str:
    """MN of an HJ 212 station."""
    return f"SIM{_digits(device.name, 21).upper()}"


def dev_eui(device: Device) -> str:
    """EUI-64 of a LoRaWAN device; its first byte marks it as locally administered."""
    return f"02{_digits(device.name, 14)}"


def onewire_address(device: Device) -> str:
    """Address of a DS18B20."""
    return f"28-{_digits(device.name, 12)}"


def factor(metric: str) -> str:
    """Code of a metric in HJ 212: the standard's, or one that it leaves free."""
    if metric in _FACTORS:
        return _FACTORS[metric]
    return f"z{int(_digits(metric, 8), 16) % 100_000:05d}"
