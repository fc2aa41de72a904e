"""The kinds of rules, one module each; adding one means its module and its line in `KINDS`."""

from __future__ import annotations

from citynet_rules.kinds.accumulate import AccumulateKind
from citynet_rules.kinds.count import CountKind
from citynet_rules.kinds.cusum import CusumKind
from citynet_rules.kinds.deviation import DeviationKind
from citynet_rules.kinds.drift import DriftKind
from citynet_rules.kinds.iaqi import IaqiKind
from citynet_rules.kinds.jump import JumpKind
from citynet_rules.kinds.kind import Kind
from citynet_rules.kinds.limit import LimitKind
from citynet_rules.kinds.night_flow import NightFlowKind
from citynet_rules.kinds.physical import RangeKind
from citynet_rules.kinds.rate import RateKind
from citynet_rules.kinds.relation import RelationKind
from citynet_rules.kinds.residual import ResidualKind
from citynet_rules.kinds.sequence import SequenceKind
from citynet_rules.kinds.spectrum import SpectrumKind
from citynet_rules.kinds.stale import StaleKind
from citynet_rules.kinds.stuck import StuckKind
from citynet_rules.kinds.vote import VoteKind
from citynet_rules.kinds.weekly import WeeklyKind
from citynet_rules.kinds.witness import WitnessKind

_ALL: tuple[Kind, ...] = (
    LimitKind(),
    StaleKind(),
    RateKind(),
    StuckKind(),
    RangeKind(),
    JumpKind(),
    DriftKind(),
    CountKind(),
    AccumulateKind(),
    IaqiKind(),
    CusumKind(),
    DeviationKind(),
    WeeklyKind(),
    SpectrumKind(),
    NightFlowKind(),
    VoteKind(),
    SequenceKind(),
    ResidualKind(),
    RelationKind(),
    WitnessKind(),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
