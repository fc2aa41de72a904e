"""Replay, difference and score, without a database."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from citynet.batch import SeriesBatch
from citynet.errors import CitynetError, ConfigError
from citynet_rules.cli import app
from citynet_rules.engine import SeriesInfo
from citynet_rules.proof.alerts import Alert, AlertBook
from citynet_rules.proof.compare import compare
from citynet_rules.proof.gate import KeptScore, effective, refusals
from citynet_rules.proof.history import Block, Span, replay
from citynet_rules.proof.recorded import RecordedHistory
from citynet_rules.proof.score import score
from citynet_rules.proof.truth import read_truth
from citynet_rules.rule import Rule
from citynet_rules.spec import RuleSet, library_paths, load_rules, replaced
from citynet_rules.transition import Transition

SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
T0 = 1_767_225_600 * SECOND  # 2026-01-01
RUN = CliRunner().invoke
HEAD = 'standard = "s"\nedition = "1"\nstatus = "D"\ntitle_zh = "x"\ntitle_en = "x"\n'
HIGH = f"""
[[rule]]
id = "high"
version = 1
kind = "limit"
domain = "gas"
metric = "ch4_lel"
unit = "%LEL"
direction = "high"
levels = {{ orange = 20.0, red = 50.0 }}
{HEAD}
[[rule]]
id = "silent"
version = 1
kind = "stale"
domain = "device"
metric = "ch4_lel"
unit = "s"
level = "blue"
max_age_s = 600
{HEAD}
"""


def rules_of(folder: Path, text: str = HIGH) -> RuleSet:
    path = folder / "rules.toml"
    path.write_text(text, encoding="utf-8")
    return load_rules([path])


class Told:
    """A history that is told as rows (series, time, value), cut into blocks of one length."""

    def __init__(self, infos: list[SeriesInfo], rows: list[tuple[int, int, float]], block_us: int = HOUR) -> None:
        self._infos, self._rows, self._block_us = infos, rows, block_us

    def series(self) -> Sequence[SeriesInfo]:
        return self._infos

    def gateways(self) -> Collection[str]:
        return {"gw"}

    def blocks(self, from_us: int, to_us: int) -> Iterator[Block]:
        for start in range(from_us, to_us, self._block_us):
            stop = min(start + self._block_us, to_us)
            rows = [row for row in self._rows if start <= row[1] < stop]
            series, time_us, value = zip(*rows, strict=True) if rows else ((), (), ())
            yield Block(
                SeriesBatch.group(
                    np.array(series, np.int32), np.array(time_us, np.int64), np.array(value, np.float64),
                    np.zeros(len(rows), np.uint8),
                ),
                stop,
            )  # fmt: skip


def minutes(series: int, first: int, values: list[float]) -> list[tuple[int, int, float]]:
    return [(series, T0 + (first + k) * 60 * SECOND, value) for k, value in enumerate(values)]


BEHIND = SeriesInfo(1, "a", "ch4_lel", "gw")
OTHER = SeriesInfo(2, "b", "ch4_lel", "gw")
DIRECT = SeriesInfo(3, "c", "ch4_lel", "c")


def raised(alerts: list[Alert]) -> list[tuple[str, str, int, int, int | None]]:
    """Rule, object, level, minute of the raise, minute of the clear."""
    return [(a.rule, a.object, a.level, minute(a.raised_us), a.cleared_us and minute(a.cleared_us)) for a in alerts]


def minute(time_us: int) -> int:
    return (time_us - T0) // (60 * SECOND)


@pytest.mark.parametrize("block_us", [HOUR, 7 * 60 * SECOND, DAY])
def test_a_replay_gives_the_alerts_of_the_readings_however_they_are_cut(tmp_path: Path, block_us: int) -> None:
    rows = minutes(1, 0, [5, 5, 30, 60, 60, 5, 5]) + minutes(2, 0, [1.0] * 120)
    history = Told([BEHIND, OTHER], rows, block_us)
    done = replay(rules_of(tmp_path), history, Span(T0, T0 + 2 * HOUR))
    assert done.readings == 127
    assert raised(done.alerts) == [("high", "a", 4, 2, 5), ("silent", "a", 1, 16, None)]


def test_devices_of_a_gateway_that_is_silent_itself_are_not_called_silent(tmp_path: Path) -> None:
    rules = rules_of(tmp_path)
    rows = minutes(1, 0, [1.0] * 10)
    assert replay(rules, Told([BEHIND], rows), Span(T0, T0 + 5 * HOUR)).alerts == []
    rows = minutes(3, 0, [1.0] * 10)
    found = replay(rules, Told([DIRECT], rows), Span(T0, T0 + 5 * HOUR)).alerts
    assert raised(found) == [("silent", "c", 1, 19, None)]


def test_a_rule_that_raises_without_end_is_named() -> None:
    book = AlertBook(alerts_max=0)
    with pytest.raises(CitynetError, match="more than 0 alerts, most of them of high"):
        book.take([Transition("x", "high", "1", "a", 1, "raise", 3, T0, 1.0, 1.0, {}, "", "")])


def test_rules_are_put_over_others_by_id(tmp_path: Path) -> None:
    rules = rules_of(tmp_path)
    over = tmp_path / "over.toml"
    text = HIGH.replace("orange = 20.0", "orange = 10.0").replace('id = "silent"', 'id = "mute"')
    over.write_text(text, encoding="utf-8")
    found = replaced(rules, load_rules([over]))
    assert [rule.id for rule in found] == ["high", "silent", "mute"]
    assert found.origins["high"].startswith(str(over))
    assert found.rules[0].model_dump()["levels"]["orange"] == 10.0


# --- difference ---


SPAN = Span(T0, T0 + DAY)
ONE = Alert("r", "1", "a", 3, T0 + HOUR, T0 + 2 * HOUR)


def test_difference() -> None:
    longer = replace(ONE, cleared_us=T0 + 3 * HOUR)
    graver = replace(ONE, level=4)
    moved = replace(ONE, raised_us=T0 + HOUR + 1)
    apart = replace(ONE, raised_us=T0 + 5 * HOUR, cleared_us=None)
    assert compare([ONE], [ONE], SPAN).same == [ONE]
    assert compare([ONE], [ONE], SPAN).is_none
    for other in (longer, graver, moved):
        assert compare([ONE], [other], SPAN).changed == [(ONE, other)]
    found = compare([ONE], [apart], SPAN)
    assert (found.only_old, found.only_new, found.changed) == ([ONE], [apart], [])
    elsewhere = replace(ONE, object="b")
    assert compare([ONE], [elsewhere], SPAN).only_new == [elsewhere]


def test_spans_that_touch_within_the_tolerance_are_one_alert() -> None:
    after = replace(ONE, raised_us=T0 + 2 * HOUR + 30 * SECOND, cleared_us=None)
    assert compare([ONE], [after], SPAN).changed == [(ONE, after)]
    assert compare([ONE], [after], SPAN, tolerance_us=SECOND).only_new == [after]
    assert compare([after], [ONE], SPAN).changed == [(after, ONE)]


def test_each_alert_is_paired_once() -> None:
    flutter = [replace(ONE, raised_us=T0 + k * HOUR, cleared_us=T0 + k * HOUR + SECOND) for k in range(1, 5)]
    steady = Alert("r", "1", "a", 3, T0 + HOUR - SECOND, T0 + 6 * HOUR)
    found = compare(flutter, [steady], SPAN)
    assert found.changed == [(flutter[0], steady)]
    assert found.only_old == flutter[1:]
    back = compare([steady], flutter, SPAN)
    assert back.changed == [(steady, flutter[0])]
    assert back.only_new == flutter[1:]


def test_what_lies_beyond_the_span_is_left_out() -> None:
    before = replace(ONE, raised_us=T0 - HOUR, cleared_us=T0 + HOUR)
    assert compare([before], [], SPAN).is_none
    beyond = replace(ONE, raised_us=T0 + DAY)
    assert compare([beyond], [beyond], SPAN).same == []
    # The replay ends with the span: a clear after it is unknown to one side and left out of both.
    assert compare([replace(ONE, cleared_us=T0 + 2 * DAY)], [replace(ONE, cleared_us=None)], SPAN).is_none


# --- truth and score ---


def truth_file(folder: Path, **incident: object) -> Path:
    path = folder / "truth.jsonl"
    one = {
        "id": "leak-1", "kind": "gas-leak", "domain": "gas", "metric": "ch4_lel", "devices": ["a", "b"], "peaks": [60, 60],
        "district": "d", "start_us": T0 + HOUR, "end_us": T0 + 2 * HOUR, "rise_s": 10.0, "decay_s": 60.0,
        "expected_rule": "high", "expected_level": "red", **incident,
    }  # fmt: skip
    devices = [
        {"device": name, "gateway": "gw", "kind": "gas", "series": [{"metric": "ch4_lel", "unit": "%"}]}
        for name in "abcd"
    ]
    header = {
        "t": "header", "v": 1, "seed": 1, "scenario": "x", "started_at_us": T0, "gateways": ["gw"], "devices": devices,
        "incidents": [one],
    }  # fmt: skip
    path.write_text(json.dumps(header) + "\n" + '{"t":"end"}\n', encoding="utf-8")
    return path


def alert(minute: float, device: str = "a", level: int = 4, rule: str = "high") -> Alert:
    return Alert(rule, "1", device, level, T0 + round(minute * 60 * SECOND), None)


def test_score(tmp_path: Path) -> None:
    rules, truth = rules_of(tmp_path), read_truth(truth_file(tmp_path))
    alerts = [
        alert(62), alert(90), alert(61, "b", level=3), alert(63, "c"), alert(300), alert(65, rule="silent", level=1),
    ]  # fmt: skip
    report = score(rules, alerts, truth, SPAN, operators=2)
    high = report.rules["high"]
    assert (high.due, high.found, high.alerts, high.true, high.false) == (2, 1, 5, 3, 2)
    assert (high.recall, high.precision) == (0.5, 0.6)
    assert (high.delay_median_s, high.delay_max_s) == (120.0, 120.0)
    assert (high.false_per_day, high.alerts_per_operator_hour) == (2.0, 5 / 48)
    silent = report.rules["silent"]
    assert (silent.due, silent.recall, silent.false, silent.precision) == (0, None, 1, 0.0)
    assert (report.total.alerts, report.total.false, report.public.false) == (6, 3, 2)
    assert (report.incidents, report.incidents_found, report.missed) == (1, 1, [("leak-1", "b")])
    assert report.false_public_per_1000_sensor_days == 500.0


@pytest.mark.parametrize(
    ("minute", "is_true"), [(58.9, False), (59.1, True), (60, True), (120, True), (124.9, True), (125.1, False)]
)
def test_an_alert_belongs_to_an_incident_until_its_effect_has_died_away(
    tmp_path: Path, minute: float, *, is_true: bool
) -> None:
    report = score(rules_of(tmp_path), [alert(minute)], read_truth(truth_file(tmp_path)), SPAN)
    assert report.total.true == int(is_true)


def test_a_rule_that_the_truth_does_not_name_is_due_where_it_watches(tmp_path: Path) -> None:
    rules = rules_of(tmp_path, HIGH.replace('id = "high"', 'id = "mine"'))
    truth = read_truth(truth_file(tmp_path))
    report = score(rules, [alert(61, level=3, rule="mine")], truth, SPAN)
    assert (report.rules["mine"].due, report.rules["mine"].found) == (2, 1)
    assert report.total.found == 0, "nobody reached red"
    assert score(rules, [alert(61, rule="mine")], truth, SPAN).total.found == 1


def test_incidents_outside_the_span_are_not_due(tmp_path: Path) -> None:
    report = score(rules_of(tmp_path), [], read_truth(truth_file(tmp_path)), Span(T0 + 2 * HOUR, T0 + DAY))
    assert (report.incidents, report.total.due, report.total.recall, report.total.precision) == (0, 0, None, None)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "Expecting property name"),
        ("[]", "no header"),
        ('{"t":"header","v":2}', "version 2, this reader knows 1"),
        ('{"t":"header","v":1,"started_at_us":1,"incidents":[]}', "'devices' is missing"),
    ],
)
def test_a_truth_file_that_is_none(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "t"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(CitynetError, match=r"truth file .*, line 1: ") as caught:
        read_truth(path)
    assert what in str(caught.value)
    with pytest.raises(CitynetError, match="incident leak-1: level 'pink'"):
        read_truth(truth_file(tmp_path, expected_level="pink"))


# --- a recorded run ---


def recorded(folder: Path, rows: list[tuple[int, str, float | None]]) -> Path:
    path = folder / "readings.jsonl"
    lines = [
        json.dumps({"time_us": T0 + s * SECOND, "gateway": "gw", "device": d, "values": {"ch4_lel": v}})
        for s, d, v in rows
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_recorded_run_is_a_history(tmp_path: Path) -> None:
    rows: list[tuple[int, str, float | None]] = [(s, d, float(s)) for s in range(0, 8000, 1000) for d in ("a", "b")]
    history = RecordedHistory(recorded(tmp_path, [*rows, (8000, "a", None)]), read_truth(truth_file(tmp_path)))
    assert history.extent() == (T0, T0 + 8000 * SECOND)
    blocks = list(history.blocks(T0 + 1000 * SECOND, T0 + 9000 * SECOND))
    assert [block.until_us - T0 for block in blocks] == [4600 * SECOND, 9000 * SECOND]
    assert [len(block.batch) for block in blocks] == [8, 7]
    assert blocks[0].batch.series.tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert np.isnan(blocks[1].batch.value[3])


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([(5, "a", 1.0), (4, "a", 1.0)], "line 2: is older than the line before it"),
        ([(5, "z", 1.0)], "line 1: the truth knows no z/ch4_lel"),
    ],
)
def test_a_recorded_run_that_does_not_fit(tmp_path: Path, rows: list[tuple[int, str, float | None]], what: str) -> None:
    history = RecordedHistory(recorded(tmp_path, rows), read_truth(truth_file(tmp_path)))
    with pytest.raises(CitynetError, match=what):
        list(history.blocks(T0, T0 + HOUR))


def test_score_of_a_recorded_run_by_command(tmp_path: Path) -> None:
    rules_of(tmp_path)
    truth = truth_file(tmp_path)
    rows: list[tuple[int, str, float | None]] = [
        (s, d, 60.0 if 3600 < s < 7200 and d == "a" else 1.0) for s in range(0, 9000, 60) for d in "ab"
    ]
    words = ["score", "--truth", str(truth), "--recorded", str(recorded(tmp_path, rows))]
    words += ["--rules", str(tmp_path / "rules.toml")]
    result = RUN(app, [*words, "--json"])
    answer = json.loads(result.stdout)
    assert result.exit_code == 0, result.stderr
    assert (answer["readings"], answer["total"]["due"], answer["total"]["found"]) == (300, 2, 1)
    assert answer["rules"]["high"]["delay_median_s"] == 60.0
    assert answer["missed"] == [{"incident": "leak-1", "device": "b"}]
    result = RUN(app, words)
    assert "1 of 1 incidents found" in result.stdout
    assert "missed: leak-1 at b" in result.stdout


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["score"], "give one of --corpus, --table and --truth"),
        (["score", "--truth", "t", "--warmup", "100"], "--truth takes neither"),
        (["score", "--corpus", "c", "--out", "o", "--recorded", "r"], "belong to --truth"),
        (["replay", "--from", "2026-01-01T00:00Z", "--to", "2026-01-01T00:00Z"], "is not after --from"),
        (["replay", "--from", "2026-01-01", "--to", "2026-01-02"], "needs a time zone"),
        (
            ["replay", "--from", "2026-01-01T00Z", "--to", "2026-01-02T00Z", "--rules", "a", "--new", "b"],
            "give either --rules or --new",
        ),
    ],
)
def test_usage(words: list[str], what: str) -> None:
    result = RUN(app, words)
    assert result.exit_code == 2
    assert what in " ".join(result.stderr.replace("│", " ").split())


# --- what may be armed ---


NOON = datetime(2026, 1, 1, tzinfo=UTC)
GUIDED = 'guidance_zh = "看"\nguidance_en = "Look."\n'


def one(folder: Path, more: str) -> Rule:
    text = HIGH.split("[[rule]]")[1]
    return rules_of(folder, f"[[rule]]{text}{more}").rules[0]


@pytest.mark.parametrize(
    ("more", "kept", "wanted"),
    [
        ("", None, ["has no guidance in Chinese", "has no guidance in English"]),
        (GUIDED, None, []),
        (GUIDED.replace("Look.", "  "), None, ["has no guidance in English"]),
        (GUIDED + "score_floor = { recall = 0.9 }", None, ["has a score_floor and no kept score"]),
        (GUIDED + "score_floor = { recall = 0.9 }", (None, 0.9), []),
        (GUIDED + "score_floor = { recall = 0.9 }", (1.0, 0.89), ["its last recall is 0.89, its floor is 0.9"]),
        (
            GUIDED + "score_floor = { precision = 0.5, recall = 0.9 }",
            (None, 0.0),
            ["its last score has no precision, its floor is 0.5", "its last recall is 0, its floor is 0.9"],
        ),
    ],
)
def test_what_a_rule_must_bring(
    tmp_path: Path, more: str, kept: tuple[float | None, float | None] | None, wanted: list[str]
) -> None:
    rule = one(tmp_path, more)
    scores = {rule.fingerprint: KeptScore(NOON, *kept)} if kept else {}
    assert refusals(rule, scores.get(rule.fingerprint)) == wanted
    running, why = effective(RuleSet((rule,)), scores, [])
    assert running.rules[0].mode == ("shadow" if wanted else "live")
    assert why == ({rule.id: "; ".join(wanted)} if wanted else {})
    assert running.rules[0].fingerprint == rule.fingerprint
    assert effective(RuleSet((rule,)), scores, [rule.digest])[0].rules[0].mode == "live"


def test_shipped_rules_may_all_be_armed() -> None:
    assert effective(load_rules(library_paths()), {}, [])[1] == {}


def test_a_digest_is_of_the_whole_rule_but_its_mode(tmp_path: Path) -> None:
    rule = one(tmp_path, GUIDED)
    assert one(tmp_path, GUIDED + 'mode = "shadow"').digest == rule.digest
    assert one(tmp_path, GUIDED.replace("Look", "See")).digest != rule.digest


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("score_floor = {}", "high.score_floor: needs precision, recall or both"),
        ("score_floor = { recall = 1.5 }", "high.score_floor.recall: input should be less than or equal to 1"),
        ('mode = "quiet"', "high.mode: input should be 'live' or 'shadow'"),
    ],
)
def test_mistakes_in_them_are_found(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        one(tmp_path, line)
    assert problem in str(caught.value)


@pytest.mark.parametrize("override", ["", "wang", "wang:", ": why"])
def test_an_override_has_a_name_and_a_reason(tmp_path: Path, override: str) -> None:
    rules_of(tmp_path)
    words = ["arm", str(tmp_path / "rules.toml"), "--author", "li", "--reason", "r", "--override", override]
    result = RUN(app, words)
    assert (result.exit_code, "must be 'NAME: why'" in result.stderr) == (2, True)
