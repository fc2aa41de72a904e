"""Pictures of the city: a day of every kind of device, and what every fault does. Needs matplotlib (extra `plot`).

An event or a sensor fault shows in readings: of the devices that it names, or for staged weather of the weather stations. A
transport fault shows in messages: how long each was on its way, which never arrived, how many came in a minute. The fault's
span is shaded. Times are the city's local time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from citynet.errors import CitynetError
from citynet_sim import transport
from citynet_sim.city import Device
from citynet_sim.faults import EVENT, TRANSPORT, Fault
from citynet_sim.instruments import SILENT, WARM_UP_S
from citynet_sim.kinds import KINDS
from citynet_sim.models.rhythm import DAY_S, LOCAL_OFFSET_S
from citynet_sim.simulation import Simulation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_METRICS_MAX = 7
_BEFORE, _AFTER = 0.25, 0.6  # of a fault's length, shown before and after it
_DEVICES_MAX = 4
_DOTS_MAX = 300  # so few samples are shown each
_GAP_PERIODS = 3  # a line does not cross a longer silence
_CLOCK = "stamp ahead"
_MINUTE_US = 60_000_000


class PlotError(CitynetError):
    """Pictures cannot be made: matplotlib is missing, or the folder cannot be written."""


def days(simulation: Simulation, _name: str, t0_us: int, t1_us: int, folder: Path) -> Iterator[Path]:
    """One picture a kind: its metrics at three of its devices over the span."""
    for kind in KINDS.values():
        devices = simulation.city.of_kind(kind.name)[:3]
        if devices:
            names = [metric.name for metric in kind.metrics if metric.name != "battery_pct"][:_METRICS_MAX]
            figure, axes = _figure(len(names), f"{kind.name} ({kind.domain}), seed {simulation.city.seed}")
            _readings(simulation, devices, names, (t0_us, t1_us), axes)
            yield _save(figure, axes, folder / f"day-{kind.name}.png")


def faults(simulation: Simulation, name: str, t0_us: int, t1_us: int, folder: Path) -> Iterator[Path]:
    """One picture a fault: what it changes, the others of the device's metrics, its span shaded."""
    for fault in simulation.faults:
        touched = _touched(simulation, fault)
        if not touched:
            continue
        span = _window(fault, t0_us, t1_us)
        title = f"{name}: {fault.id}, {fault.cause}; seed {simulation.city.seed}"
        if fault.layer == TRANSPORT:
            figure, axes = _figure(2, title)
            _messages(simulation, touched, span, axes)
        else:
            names = _names(fault, touched[0])
            figure, axes = _figure(len(names), title)
            _readings(simulation, touched, names, span, axes)
        for axis in axes:
            axis.axvspan(_day(fault.start_us), _day(fault.end_us), color="0.88", zorder=0)
        yield _save(figure, axes, folder / f"{name}-{fault.id}.png")


def _touched(simulation: Simulation, fault: Fault) -> list[Device]:
    """Devices that show a fault."""
    devices = simulation.city.devices
    if fault.layer == TRANSPORT:
        found = [device for device in devices if device.gateway in fault.gateways]
    elif fault.devices:
        found = [device for device in devices if device.name in fault.devices]
    else:  # weather
        gauges = simulation.city.of_kind("rain-gauge")
        found = [device for device in gauges if device.district == fault.district] or list(gauges)
    return found[:_DEVICES_MAX]


def _window(fault: Fault, t0_us: int, t1_us: int) -> tuple[int, int]:
    """What is shown of a fault: what was before it, and until its effect has gone."""
    tail_s = fault.decay_s if fault.layer == EVENT else WARM_UP_S if fault.kind in SILENT else 0.0
    if fault.kind in ("replay", "reorder", "delay"):
        tail_s = fault.peaks[0] / 3.0
    length_us = fault.end_us - fault.start_us + round(3e6 * tail_s)
    before_us = round(_BEFORE * length_us) if fault.kind != "replay" else round(1.2e6 * fault.peaks[0])
    from_us = max(fault.start_us - before_us - _MINUTE_US, t0_us - 60 * _MINUTE_US)
    after_us = round((_BEFORE if fault.layer == TRANSPORT else _AFTER) * length_us) + _MINUTE_US
    return from_us, min(fault.end_us + after_us, max(t1_us, fault.end_us + length_us))


def _names(fault: Fault, device: Device) -> list[str]:
    others = [metric.name for metric in device.metrics if metric.name not in (fault.metric, "battery_pct")]
    own = [fault.metric] if fault.metric in [metric.name for metric in device.metrics] else []
    return [*([_CLOCK] if fault.kind == "clock-skew" else []), *own, *others][:_METRICS_MAX]


def _figure(rows: int, title: str) -> tuple[Any, list[Axes]]:
    try:
        import matplotlib as mpl  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise PlotError("plots need matplotlib: install the extra `plot`") from None
    mpl.rcParams["svg.hashsalt"] = "citynet"
    figure = Figure(figsize=(9.0, 1.2 + 1.5 * rows), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    axes[0].set_title(title, fontsize=9, loc="left")
    return figure, list(axes)


def _readings(
    simulation: Simulation, devices: Sequence[Device], names: Sequence[str], span: tuple[int, int], axes: Sequence[Axes]
) -> None:
    """The devices' metrics, one an axis. `_CLOCK` is how far the stamps are ahead."""
    kind = KINDS[devices[0].kind]
    units = {metric.name: metric.unit.strip("[]") for metric in kind.metrics} | {_CLOCK: "s"}
    for axis, name in zip(axes, names, strict=True):
        axis.set_ylabel(f"{name}\n[{units[name]}]", fontsize=7)
    for device in devices:
        found = simulation.span(device, *span)
        ends = np.flatnonzero(np.diff(found.at_us) > _GAP_PERIODS * simulation.period_us(device)) + 1
        times = _times(np.insert(found.stamp_us, ends, found.stamp_us[ends]))
        dots = "." if len(times) < _DOTS_MAX else ""
        for axis, name in zip(axes, names, strict=True):
            values = (found.stamp_us - found.at_us) / 1e6 if name == _CLOCK else found.values[kind.row(name)]
            axis.plot(
                times, np.insert(values, ends, np.nan), linewidth=0.7, marker=dots, markersize=2, label=device.name
            )


def _messages(simulation: Simulation, devices: Sequence[Device], span: tuple[int, int], axes: Sequence[Axes]) -> None:
    """How long the devices' messages were on their way, and how many were sent and came in each minute."""
    way, rate = axes
    way.set_ylabel("on the way\n[s]", fontsize=7)
    rate.set_ylabel("messages\n[1/min]", fontsize=7)
    edges = np.arange(-(-span[0] // _MINUTE_US), span[1] // _MINUTE_US + 1) * _MINUTE_US
    sent, arrived, gone, latest_s = [], [], [], 1.0
    for device in devices:
        at_us = simulation.span(device, *span).at_us
        acting = transport.acting(simulation.faults, device.gateway)
        position, arrival = transport.deliver(simulation.city.seed, device.name, at_us, acting)
        gone.append(np.delete(at_us, np.unique(position)))
        sent.append(at_us)
        arrived.append(arrival)
        late_s = (arrival - at_us[position]) / 1e6
        latest_s = max(latest_s, float(late_s.max(initial=0.0)))
        way.plot(_times(at_us[position]), late_s, ".", markersize=2, label=device.name)
    way.set_ylim(-0.05 * latest_s, 1.2 * latest_s)
    if len(lost := np.concatenate(gone)):
        way.plot(
            _times(lost), np.full(len(lost), 1.1 * latest_s), "|", color="black", markersize=6, label="never arrived"
        )
    for what, times_us, style in (("sent", sent, "-"), ("arrived", arrived, "--")):
        counts, _ = np.histogram(np.concatenate(times_us), edges)
        counts = np.append(counts, counts[-1:])
        rate.plot(
            _times(edges[: len(counts)]), counts, style, drawstyle="steps-post", linewidth=0.9, color="0.3", label=what
        )


def _times(stamps_us: Any) -> Any:
    """Local times as matplotlib takes them."""
    return (stamps_us + round(LOCAL_OFFSET_S * 1e6)).astype("datetime64[us]")


def _save(figure: Any, axes: list[Axes], path: Path) -> Path:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415

    locator = AutoDateLocator(minticks=5, maxticks=11)  # type: ignore[no-untyped-call]
    axes[-1].xaxis.set_major_locator(locator)
    axes[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    figure.align_ylabels(axes)
    for axis in axes:
        axis.tick_params(labelsize=7)
        axis.xaxis.get_offset_text().set_fontsize(7)
        axis.grid(visible=True, linewidth=0.3)
    labels = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(
        labels.values(), labels, loc="outside lower left", ncols=len(labels), fontsize=7, markerscale=2, frameon=False
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=70, metadata={"Software": None})
    except OSError as error:
        raise PlotError(f"{path}: {error.strerror}") from None
    return path


def _day(time_us: int) -> float:
    """Local time as matplotlib counts it: days since 1970."""
    return (time_us / 1e6 + LOCAL_OFFSET_S) / DAY_S
