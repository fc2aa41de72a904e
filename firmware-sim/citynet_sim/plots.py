"""Pictures of the city: a day of every kind of device, and the readings around every fault. Needs matplotlib (extra `plot`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citynet.errors import CitynetError
from citynet_sim.city import Device
from citynet_sim.faults import EVENT, SENSOR, Fault
from citynet_sim.kinds import KINDS
from citynet_sim.models.rhythm import DAY_S, LOCAL_OFFSET_S
from citynet_sim.simulation import Simulation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_METRICS_MAX = 5
_BEFORE, _AFTER = 0.25, 0.6  # of a fault's length, shown before and after it
_DEVICES_MAX = 4


class PlotError(CitynetError):
    """Pictures cannot be made: matplotlib is missing, or the folder cannot be written."""


def days(simulation: Simulation, _name: str, t0_us: int, t1_us: int, folder: Path) -> Iterator[Path]:
    """One picture a kind: every metric of three of its devices over the span."""
    for kind in KINDS.values():
        devices = simulation.city.of_kind(kind.name)[:3]
        if not devices:
            continue
        names = [metric.name for metric in kind.metrics if metric.name != "battery_pct"][:_METRICS_MAX]
        figure, axes = _figure(len(names), f"{kind.name} ({kind.domain}), seed {simulation.city.seed}")
        for device in devices:
            for name, axis in zip(names, axes, strict=True):
                _draw(simulation, device, name, t0_us, t1_us, axis)
        yield _save(figure, axes, names, kind.name, folder / f"day-{kind.name}.png")


def faults(simulation: Simulation, name: str, t0_us: int, t1_us: int, folder: Path) -> Iterator[Path]:
    """One picture a fault that shows on devices: its metric and the others of the device, the fault shaded."""
    for fault in simulation.faults:
        touched = [device for device in simulation.city.devices if device.name in fault.devices][:_DEVICES_MAX]
        if fault.layer not in (EVENT, SENSOR) or not touched:
            continue
        length_us = fault.end_us - fault.start_us + round(3e6 * fault.decay_s * (fault.layer == EVENT))
        from_us = max(fault.start_us - round(_BEFORE * length_us) - 60_000_000, t0_us - 3_600_000_000)
        to_us = min(fault.end_us + round(_AFTER * length_us) + 60_000_000, max(t1_us, fault.end_us + length_us))
        names = _names(fault, touched[0])
        figure, axes = _figure(len(names), f"{name}: {fault.id}, {fault.cause}; seed {simulation.city.seed}")
        for device in touched:
            for metric, axis in zip(names, axes, strict=True):
                _draw(simulation, device, metric, from_us, to_us, axis)
        for axis in axes:
            axis.axvspan(_day(fault.start_us), _day(fault.end_us), color="0.85", zorder=0)
        yield _save(figure, axes, names, touched[0].kind, folder / f"{name}-{fault.id}.png")


def _names(fault: Fault, device: Device) -> list[str]:
    others = [metric.name for metric in device.metrics if metric.name not in (fault.metric, "battery_pct")]
    own = [fault.metric] if fault.metric in [metric.name for metric in device.metrics] else []
    return [*own, *others][:_METRICS_MAX]


def _figure(rows: int, title: str) -> tuple[Any, list[Axes]]:
    try:
        import matplotlib as mpl  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise PlotError("plots need matplotlib: install the extra `plot`") from None
    mpl.rcParams["svg.hashsalt"] = "citynet"
    figure = Figure(figsize=(9.0, 1.0 + 1.6 * rows), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    axes[0].set_title(title, fontsize=9, loc="left")
    return figure, list(axes)


def _draw(simulation: Simulation, device: Device, metric: str, t0_us: int, t1_us: int, axis: Axes) -> None:
    row = KINDS[device.kind].row(metric)
    stamps, values = simulation.columns(device, t0_us, t1_us)
    times = (stamps + round(LOCAL_OFFSET_S * 1e6)).astype("datetime64[us]")
    axis.plot(
        times, values[row], linewidth=0.7, marker="." if len(times) < 300 else "", markersize=2, label=device.name
    )


def _save(figure: Any, axes: list[Axes], names: list[str], kind: str, path: Path) -> Path:
    units = {metric.name: metric.unit for metric in KINDS[kind].metrics}
    for axis, name in zip(axes, names, strict=True):
        axis.set_ylabel(f"{name}\n[{units[name]}]", fontsize=7)
        axis.tick_params(labelsize=7)
        axis.grid(visible=True, linewidth=0.3)
    axes[0].legend(fontsize=7, loc="upper right")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=70, metadata={"Software": None})
    except OSError as error:
        raise PlotError(f"{path}: {error.strerror}") from None
    return path


def _day(time_us: int) -> float:
    """Local time as matplotlib counts it: days since 1970."""
    return (time_us / 1e6 + LOCAL_OFFSET_S) / DAY_S
