"""The exam: alerts against everything that a labelled city staged, over any number of runs.

A *place* is one device of one staged event for which some colour is right. An alert speaks *for people* unless its rule is of
the domain `device` or its verdict says that a device is at fault. Every alert for people is one of

- **true**: at a device that an event names, while it can be seen (and a tolerance);
- **explained**: it follows from an event that names other devices: staged rain in its district (what rain fills), or a burst
  in the same network (what hangs on it);
- **device**: at a device that a staged sensor fault distorts, or behind a gateway that a staged transport fault disturbs;
- **false**: nothing was staged there.

A place is *found* by a true or explained alert in force there, of the right colour or above, that is not another incident's;
*seen* by one of any colour. An incident is found when one of its places is. Alerts of the classes `device` and `false` are
false alerts for people, whatever their cause.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from citynet_rules.proof.alerts import Alert
from citynet_rules.proof.history import Span
from citynet_rules.proof.rehearsal import EVENT, SENSOR, TRANSPORT, Extremes, Place, Staged
from citynet_rules.proof.score import DEVICE, TOLERANCE_US
from citynet_rules.rule import COLOURS, Rule
from citynet_rules.spec import RuleSet

TRUE, EXPLAINED, OF_DEVICE, FALSE = "true", "explained", "device", "false"
Progress = Callable[[int, int], None]  # time reached (µs), readings so far
CLASSES = (TRUE, EXPLAINED, OF_DEVICE, FALSE)
SETTLING_US = 900_000_000  # a sensor is itself again a quarter of an hour after its fault: it warms up, windows run out
RAIN_US = 43_200_000_000  # rain of twelve hours is judged together
RAIN_FILLS = frozenset(
    ("rain_mm_h", "level_m", "ponding_cm", "sump_level_m", "pump_current_a", "stage_m", "discharge_m3_s")
)
ORIGINS = {"gas-leak": "leak", "biogas": "biogas"}  # event: where its methane comes from
NETWORKS = {"burst": frozenset(("water-meter", "pressure-point"))}  # event: kinds of devices that share its network


@dataclass(frozen=True, slots=True)
class Judged:
    """An alert and what became of it: one of `CLASSES`, or `device-rule` for one that does not speak for people."""

    alert: Alert
    rule: Rule
    is_for_people: bool
    verdict: str
    cause: str  # id of what was staged, empty if nothing was


@dataclass(frozen=True, slots=True)
class Sight:
    """A place, and its first alert: `delay_s` from the incident's start to a raise that reached the right colour, None if
    none did; `why` it was missed."""

    incident: Staged
    device: str
    delay_s: float | None
    is_seen: bool
    rules: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Paper:
    """What one run came to."""

    scenario: str
    seed: int
    days: float
    sensors: int
    readings: int
    staged: Sequence[Staged]
    judged: Sequence[Judged]
    sights: Sequence[Sight]
    faults: Sequence[
        tuple[Staged, bool, bool]
    ]  # sensor and transport faults: noticed by device rules, graded for people


def examine(
    rules: RuleSet, alerts: Iterable[Alert], staged: Sequence[Staged], places: Mapping[str, Place], extremes: Extremes,
    span: Span, *, scenario: str, seed: int, readings: int, tolerance_us: int = TOLERANCE_US,
) -> Paper:  # fmt: skip
    """Judge the alerts raised in `span`."""
    by_id = {rule.id: rule for rule in rules}
    court = _Court(staged, places, tolerance_us)
    judged = [
        court.judge(alert, by_id[alert.rule])
        for alert in alerts
        if span.from_us <= alert.raised_us < span.to_us and alert.rule in by_id
    ]
    sights = [
        _sight(incident, device, judged, rules, places, extremes, tolerance_us)
        for incident in staged
        if incident.layer == EVENT and incident.level and span.from_us <= incident.start_us < span.to_us
        for device in incident.devices
    ]
    return Paper(
        scenario, seed, (span.to_us - span.from_us) / 86_400e6, len(places), readings, staged, judged, sights,
        [court.noticed(fault, judged) for fault in staged if fault.layer in (SENSOR, TRANSPORT)],
    )  # fmt: skip


class _Court:
    """Says of an alert what caused it."""

    def __init__(self, staged: Sequence[Staged], places: Mapping[str, Place], tolerance_us: int) -> None:
        self._places = places
        self._tolerance_us = tolerance_us
        self._at: dict[str, list[Staged]] = defaultdict(list)
        for one in staged:
            for device in one.devices:
                self._at[device].append(one)
        self._rains = [one for one in staged if one.layer == EVENT and one.rains]
        self._networks = [one for one in staged if one.kind in NETWORKS]
        self._transport = [one for one in staged if one.layer == TRANSPORT]

    def judge(self, alert: Alert, rule: Rule) -> Judged:
        is_for_people = rule.domain != DEVICE and alert.people
        found = self._cause(alert, rule) if is_for_people else self._device_fault(alert)
        verdict = found[0] if is_for_people else "device-rule"
        return Judged(alert, rule, is_for_people, verdict, found[1])

    def _cause(self, alert: Alert, rule: Rule) -> tuple[str, str]:
        for one in self._at[alert.object]:
            if one.layer == EVENT and one.level and self._is_during(alert, one, self._tolerance_us):
                return TRUE, one.id
        place = self._places.get(alert.object)
        if place is not None:
            for one in self._rains:
                if (
                    rule.metric in RAIN_FILLS
                    and one.district in ("", place.district)
                    and self._is_during(alert, one, RAIN_US)
                ):
                    return EXPLAINED, one.id
            for one in self._networks:
                if place.kind in NETWORKS[one.kind] and self._is_during(alert, one, self._tolerance_us):
                    return EXPLAINED, one.id
        kind, cause = self._device_fault(alert)
        return (OF_DEVICE, cause) if cause else (FALSE, kind)

    def _device_fault(self, alert: Alert) -> tuple[str, str]:
        for one in self._at[alert.object]:
            if one.layer == SENSOR and self._is_during(alert, one, SETTLING_US):
                return OF_DEVICE, one.id
        place = self._places.get(alert.object)
        for one in self._transport:
            if place is not None and place.gateway in one.gateways and self._is_during(alert, one, SETTLING_US):
                return OF_DEVICE, one.id
        return "", ""

    def _is_during(self, alert: Alert, one: Staged, after_us: int) -> bool:
        return one.start_us - self._tolerance_us <= alert.raised_us <= one.over_us + after_us

    def noticed(self, fault: Staged, judged: Sequence[Judged]) -> tuple[Staged, bool, bool]:
        of_it = [each for each in judged if each.cause == fault.id]
        return fault, any(not each.is_for_people for each in of_it), any(each.is_for_people for each in of_it)


def _sight(
    incident: Staged, device: str, judged: Sequence[Judged], rules: RuleSet, places: Mapping[str, Place],
    extremes: Extremes, tolerance_us: int,
) -> Sight:  # fmt: skip
    during = [
        each
        for each in judged
        if each.verdict in (TRUE, EXPLAINED)
        and each.alert.object == device
        and each.alert.raised_us <= incident.over_us + tolerance_us
        and (each.alert.cleared_us is None or each.alert.cleared_us >= incident.start_us)
        and (each.alert.raised_us >= incident.start_us or each.verdict == EXPLAINED or each.cause == incident.id)
    ]
    right = [each for each in during if each.alert.level >= incident.level]
    names = tuple(sorted({each.rule.id for each in during}))
    if right:
        delay_s = max(0, min(each.alert.raised_us for each in right) - incident.start_us) / 1e6
        return Sight(incident, device, delay_s, is_seen=True, rules=names)
    if during:
        best = COLOURS[max(each.alert.level for each in during) - 1]
        why = f"too low: {best} by {', '.join(names)}"
        return Sight(incident, device, None, is_seen=True, rules=names, why=why)
    after = [each for each in judged if each.is_for_people and each.alert.object == device]
    late = [each for each in after if each.alert.raised_us > incident.over_us]
    why = f"too late: {late[0].rule.id}" if late else _why_silent(incident, device, rules, places[device], extremes)
    return Sight(incident, device, None, is_seen=False, rules=(), why=why)


def _why_silent(incident: Staged, device: str, rules: RuleSet, place: Place, extremes: Extremes) -> str:
    """Which rules watch what shows there, and how far the readings stayed inside."""
    raising = [rule for rule in rules if rule.domain != DEVICE and rule.kind != "witness"]
    watching = [rule for rule in raising if rule.selects(device, incident.metric)]
    if not watching:
        others = [rule.id for rule in raising if any(rule.selects(device, m) for m in place.metrics)]
        return f"no rule for {incident.metric}; silent: {', '.join(others) or 'none'}"
    told = []
    for rule in watching:
        seen = extremes.of(incident.id, device, rule.metric)
        levels, direction = getattr(rule, "levels", None), getattr(rule, "direction", "")
        if rule.kind == "limit" and levels and seen is not None:
            limit, best = (max(levels.values()), seen[0]) if direction == "low" else (min(levels.values()), seen[1])
            told.append(f"{rule.id} {best:g} of {limit:g} {rule.unit}")
        else:
            told.append(f"{rule.id} was not raised")
    return f"below threshold: {'; '.join(told)}"


# --- over all papers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """Alerts for people by class, and places."""

    name: str
    alerts: Mapping[str, int]
    due: int
    found: int
    seen: int
    delay_median_s: float | None
    delay_max_s: float | None

    @property
    def precision(self) -> float | None:
        """True and explained alerts of all."""
        total = sum(self.alerts.values())
        return (self.alerts[TRUE] + self.alerts[EXPLAINED]) / total if total else None

    @property
    def recall(self) -> float | None:
        return self.found / self.due if self.due else None


def row(name: str, judged: Iterable[Judged], sights: Iterable[Sight]) -> Row:
    """One line of a table."""
    counts = dict.fromkeys(CLASSES, 0)
    for each in judged:
        if each.is_for_people:
            counts[each.verdict] += 1
    places = list(sights)
    delays = [sight.delay_s for sight in places if sight.delay_s is not None]
    return Row(
        name, counts, len(places), len(delays), sum(sight.is_seen for sight in places),
        median(delays) if delays else None, max(delays, default=None),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mark:
    """The figures that the packs are held to, over some papers. Rates are None where nothing can be counted."""

    total: Row
    incidents: int
    incidents_found: int
    sensor_days: float
    operator_hours: float
    device_faults: int
    device_faults_noticed: int
    device_faults_for_people: int

    @property
    def incident_recall(self) -> float | None:
        return self.incidents_found / self.incidents if self.incidents else None

    @property
    def false_per_1000_sensor_days(self) -> float:
        """Alerts for people that nothing in the city justifies, those of staged device faults included."""
        return 1000.0 * (self.total.alerts[FALSE] + self.total.alerts[OF_DEVICE]) / self.sensor_days

    @property
    def alerts_per_operator_hour(self) -> float:
        return sum(self.total.alerts.values()) / self.operator_hours

    @property
    def device_share_for_people(self) -> float | None:
        return self.device_faults_for_people / self.device_faults if self.device_faults else None


def mark(papers: Sequence[Paper], operators: int = 1) -> Mark:
    """The figures of several papers together; at least one."""
    sights = [(number, sight) for number, paper in enumerate(papers) for sight in paper.sights]
    faults = [fault for paper in papers for fault in paper.faults if fault[0].layer == SENSOR]
    return Mark(
        total=row("all", (each for paper in papers for each in paper.judged), (sight for _, sight in sights)),
        incidents=len({(number, sight.incident.id) for number, sight in sights}),
        incidents_found=len({(number, sight.incident.id) for number, sight in sights if sight.delay_s is not None}),
        sensor_days=sum(paper.sensors * paper.days for paper in papers),
        operator_hours=operators * 24.0 * sum(paper.days for paper in papers),
        device_faults=len(faults),
        device_faults_noticed=sum(noticed for _, noticed, _ in faults),
        device_faults_for_people=sum(graded for _, _, graded in faults),
    )


def by_rule(papers: Sequence[Paper]) -> list[Row]:
    """A row for each rule that raised an alert for people; its places are those where it was among those that raised."""
    judged: dict[str, list[Judged]] = defaultdict(list)
    sights: dict[str, list[Sight]] = defaultdict(list)
    for paper in papers:
        for each in paper.judged:
            judged[each.rule.id].append(each)
        for sight in paper.sights:
            for rule in sight.rules:
                sights[rule].append(sight)
    return [
        row(name, judged[name], sights[name]) for name in sorted(judged) if any(j.is_for_people for j in judged[name])
    ]


def by_domain(papers: Sequence[Paper]) -> list[Row]:
    """A row for each domain of staged events: places, and the alerts that they caused; last the alerts that nothing caused."""
    return _grouped(papers, lambda one: one.domain)


def by_kind(papers: Sequence[Paper]) -> list[Row]:
    """A row for each kind of staged fault."""
    return _grouped(papers, lambda one: one.kind)


def _grouped(papers: Sequence[Paper], name_of: Callable[[Staged], str]) -> list[Row]:
    judged: dict[str, list[Judged]] = defaultdict(list)
    sights: dict[str, list[Sight]] = defaultdict(list)
    for paper in papers:
        names = {one.id: name_of(one) for one in paper.staged}
        for name in names.values():
            judged.setdefault(name, [])
        for each in paper.judged:
            judged[names.get(each.cause, "nothing staged")].append(each)
        for sight in paper.sights:
            sights[name_of(sight.incident)].append(sight)
    return [row(name, judged[name], sights[name]) for name in sorted(judged)]


def by_origin(papers: Sequence[Paper]) -> list[tuple[str, dict[str, int]]]:
    """For each origin of methane: how often alerts for people that it caused say biogas, leak or unknown at their end. Where a
    leak and biogas are in one well during an alert, leak is right."""
    found = {origin: dict.fromkeys(("leak", "biogas", "unknown"), 0) for origin in ("leak", "biogas")}
    for paper in papers:
        staged = [one for one in paper.staged if one.kind in ORIGINS]
        for alert in (each.alert for each in paper.judged if each.is_for_people and each.alert.origin):
            right = {
                ORIGINS[one.kind]
                for one in staged
                if alert.object in one.devices
                and one.start_us <= (one.over_us if alert.cleared_us is None else alert.cleared_us)
                and alert.raised_us <= one.over_us
            }
            if right:
                found[max(right)][alert.origin] += 1  # "leak" is after "biogas"
    return list(found.items()) if any(any(counts.values()) for counts in found.values()) else []


def by_device_fault(papers: Sequence[Paper]) -> list[tuple[str, int, int, int]]:
    """For each kind of sensor and transport fault: staged, noticed by rules of device health, graded for people."""
    faults = sorted((each for paper in papers for each in paper.faults), key=lambda each: each[0].kind)
    found = []
    for kind, some in groupby(faults, key=lambda each: each[0].kind):
        same = list(some)
        found.append((kind, len(same), sum(each[1] for each in same), sum(each[2] for each in same)))
    return found
