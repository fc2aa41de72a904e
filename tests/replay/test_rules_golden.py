"""Shipped rules in stories on simulated time; every rule has golden cases besides (test_rules_packs.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import nan

import pytest

from citynet.quality import BAD, TEST, UNCERTAIN

from .timeline import LIBRARY, Timeline, between, exactly

Story = Callable[[Timeline], None]
STORIES: dict[str, Story] = {}


def story(rule: str) -> Callable[[Story], Story]:
    """Register the story of a rule."""

    def register(function: Story) -> Story:
        STORIES[rule] = function
        return function

    return register


@story("gas-ch4-void")
def _leak(city: Timeline) -> None:
    """A leak: orange after 30 s above 20 %LEL, red after 30 s above 50, ventilation brings it down."""
    city.every(5, 0, 20).reading("gas-1", 4)
    city.every(5, 25, 60).reading("gas-1", 35)
    city.every(5, 65, 120).reading("gas-1", 72)
    city.every(5, 125, 200).reading("gas-1", 49)  # within the hysteresis of red: stays red
    city.every(5, 205, 300).reading("gas-1", 30)
    city.every(5, 305, 400).reading("gas-1", 6)
    city.want(exactly(55)).raised("orange")
    city.want(between(95, 96)).escalated("red")
    city.want(exactly(265)).deescalated("orange")
    city.want(exactly(365)).cleared("orange")


@story("gas-h2s")
def _sewer_gas(city: Timeline) -> None:
    """10 mg/m3 is yellow; a dip into the hysteresis breaks the delay towards 28 but clears nothing."""
    city.every(10, 0, 50).reading("well-2", 10)
    city.every(10, 60, 70).reading("well-2", 30)
    city.at(80).reading("well-2", 27.5)
    city.every(10, 90, 120).reading("well-2", 30)
    city.every(10, 130, 200).reading("well-2", 1)
    city.want(exactly(30)).raised("yellow")
    city.want(exactly(120)).escalated("orange")
    city.want(exactly(190)).cleared("orange")


@story("gas-o2-low")
def _displaced(city: Timeline) -> None:
    """Oxygen falls; test readings and bad ones say nothing about the well."""
    city.every(10, 0, 60).reading("well-3", 20.8)
    city.every(10, 70, 110).reading("well-3", 2.0, TEST)
    city.every(10, 120, 160).reading("well-3", 0.0, BAD)
    city.every(10, 170, 200).reading("well-3", nan)
    city.every(10, 210, 250).reading("well-3", 19.0, UNCERTAIN)
    city.every(10, 260, 300).reading("well-3", 17.5)
    city.every(10, 310, 400).reading("well-3", 20.8)
    city.want(exactly(240)).raised("yellow")
    city.want(exactly(290)).escalated("orange")
    city.want(exactly(370)).cleared("orange")


@story("gas-pressure-low")
def _third_party_damage(city: Timeline) -> None:
    city.every(60, 0, 240).reading("gas-7", 2.5)
    city.every(60, 300, 540).reading("gas-7", 1.9)
    city.every(60, 600, 840).reading("gas-7", 2.5)
    city.want(exactly(360)).raised("orange")  # both levels are fulfilled at once: one transition
    city.want(exactly(720)).cleared("orange")


@story("water-pressure-low")
def _burst(city: Timeline) -> None:
    """A logger of 15 minutes: two readings in a row are enough, the hole of two hours after the first is not."""
    city.at(0).reading("dma-1", 0.12)
    city.at(7200).reading("dma-1", 0.12)
    city.at(8100).reading("dma-1", 0.12)
    city.at(9000, 9900).reading("dma-1", 0.09)
    city.at(10800, 11700).reading("dma-1", 0.25)
    city.want(exactly(8100)).raised("yellow")
    city.want(exactly(9900)).escalated("orange")
    city.want(exactly(11700)).cleared("orange")


@story("water-turbidity")
def _stirred_up(city: Timeline) -> None:
    city.every(300, 0, 600).reading("dma-2", 0.4)
    city.every(300, 900, 1800).reading("dma-2", 1.6)
    city.every(300, 2100, 2700).reading("dma-2", 0.5)
    city.want(exactly(1200)).raised("yellow")
    city.want(exactly(2400)).cleared("yellow")


@story("water-chlorine-low")
def _dead_end(city: Timeline) -> None:
    city.every(300, 0, 600).reading("dma-3", 0.04)  # true from the first reading on
    city.every(300, 900, 1500).reading("dma-3", 0.055)  # within the hysteresis: not yet well
    city.every(300, 1800, 2400).reading("dma-3", 0.2)
    city.want(exactly(300)).raised("yellow")
    city.want(exactly(2100)).cleared("yellow")


@story("drainage-ponding")
def _cloudburst(city: Timeline) -> None:
    """Up through all four colours, and down again one by one."""
    depths = [0, 0, 6, 6, 11, 11, 16, 16, 26, 26, 26]
    for step, depth in enumerate([*depths, 20, 20, 20, 12, 12, 12, 7, 7, 7, 0, 0, 0]):
        city.at(30 * step).reading("mh-1", depth)
    city.want(exactly(90)).raised("blue")
    city.want(exactly(150)).escalated("yellow")
    city.want(exactly(210)).escalated("orange")
    city.want(exactly(270)).escalated("red")
    city.want(exactly(390)).deescalated("orange")
    city.want(exactly(480)).deescalated("yellow")
    city.want(exactly(570)).deescalated("blue")
    city.want(exactly(660)).cleared("blue")


@story("drainage-cover-tilt")
def _lifted(city: Timeline) -> None:
    """A cover says it once, and then once a day: no delay."""
    city.at(0).reading("mh-2", 1)
    city.at(3600).reading("mh-2", 38)
    city.at(86_400).reading("mh-2", 37)
    city.at(90_000).reading("mh-2", 0.5)
    city.want(exactly(3600)).raised("orange")
    city.want(exactly(90_000)).cleared("orange")


@story("drainage-sump-high")
def _pump_did_not_start(city: Timeline) -> None:
    """Five minutes above the alarm level; a short peak is none."""
    city.every(60, 0, 240).reading("ps-1", 3.2)
    city.every(60, 300, 600).reading("ps-1", 2.0)
    city.every(60, 660, 1200).reading("ps-1", 3.4)
    city.every(60, 1260, 2100).reading("ps-1", 2.2)
    city.want(exactly(960)).raised("orange")
    city.want(exactly(1860)).cleared("orange")


@story("device-battery-low")
def _battery(city: Timeline) -> None:
    city.at(0).reading("gas-9", 21)
    city.at(3600).reading("gas-9", 20)
    city.at(7200).reading("gas-9", 22)  # within the hysteresis
    city.at(10_800).reading("gas-9", 9)
    city.at(14_400).reading("gas-9", 100)
    city.want(exactly(3600)).raised("blue")
    city.want(exactly(10_800)).escalated("yellow")
    city.want(exactly(14_400)).cleared("yellow")


@story("device-stale-gas")
def _asleep(city: Timeline) -> None:
    """One device falls silent while its gateway speaks; one hole is only seen after the fact."""
    city.every(60, 0, 600).reading("gas-5", 3)
    city.every(60, 0, 600).reading("gas-4", 3)
    city.at(1499).watermark("gw-1")
    city.at(1501).reading("gas-5", 3)
    city.at(1600).watermark("gw-1")
    city.at(1700).reading("gas-4", nan, BAD)  # a broken sensor that speaks is not silent
    city.want(exactly(1500), "gas-5").raised("yellow")
    city.want(exactly(1501), "gas-5").cleared("yellow")
    city.want(exactly(1500), "gas-4").raised("yellow")
    city.want(exactly(1700), "gas-4").cleared("yellow")


@story("device-stale-water")
def _silent_meter(city: Timeline) -> None:
    """The server's clock does not count: the gateway may be the one that is away."""
    city.at(0).reading("dma-4", 0.3)
    city.at(5000).watermark("")
    city.at(901).watermark("gw-2")
    city.at(6000).watermark("gw-1")
    city.want(exactly(900)).raised("blue")


@story("device-stale-drainage")
def _in_time(city: Timeline) -> None:
    """A reading exactly at the deadline is in time."""
    city.at(0, 900, 1800, 2701).reading("mh-3", 0.4)
    city.want(exactly(2700)).raised("blue")
    city.want(exactly(2701)).cleared("blue")


@story("gateway-silent")
def _power_cut(city: Timeline) -> None:
    """The gateway's own watermark stands still with it; the server's clock tells."""
    city.every(10, 0, 100).reading("gw-1", 5000)
    city.at(100).watermark("gw-1")
    city.at(159, 160, 300).watermark("")
    city.at(400).reading("gw-1", 12)
    city.want(exactly(160)).raised("orange")
    city.want(exactly(400)).cleared("orange")


@pytest.mark.parametrize("rule", sorted(STORIES))
def test_the_rule_tells_its_story(rule: str) -> None:
    """The story comes out as written, with a sentence that names the device."""
    city = Timeline(rule)
    STORIES[rule](city)
    for t in city.play():
        assert t.object in t.text_zh
        assert t.object in t.text_en
        assert json.loads(json.dumps(t.evidence, allow_nan=False)) == t.evidence
        assert t.evidence["samples"]


def test_no_story_without_a_rule() -> None:
    assert set(STORIES) <= {rule.id for rule in LIBRARY}
