"""HJ 212: from a data segment to readings, what was told before, exchanges, allowance, settings."""

from __future__ import annotations

import math
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from citynet.errors import ConfigError, DecodeError
from citynet.ids import is_id
from citynet.quality import BAD, GOOD, OUT_OF_RANGE, SUBSTITUTED, TEST, UNCERTAIN
from citynet.reading import Reading
from citynet.runtime.settings import load
from citynet_gateway.drivers.allowance import BURST, EVERY_S, SOURCES_MAX, Allowance
from citynet_gateway.drivers.hj212.factors import FACTORS, PERIODS, Factor, metric_of
from citynet_gateway.drivers.hj212.message import Message, answer_to, parse
from citynet_gateway.drivers.hj212.readings import Statement, Station, factors_with, group_name, read, token_of
from citynet_gateway.drivers.hj212.request import Exchange, Reply, clock_query, clock_set, interval_set
from citynet_gateway.drivers.hj212.told import Told
from citynet_gateway.settings import GatewaySettings

MN = "010000A8900016F000169DC0"
SHANGHAI = ZoneInfo("Asia/Shanghai")
STATION = Station(MN, "river-3", None, "hj212", SHANGHAI, factors_with({"zz1": Factor("own", "v", scale=0.001)}))
AT_US = 1_470_013_137_000_000  # 2016-08-01 08:58:57 in Shanghai


def message(body: str, cn: str = "2011", head: str = "") -> Message:
    return parse(f"QN=20160801085857223;ST=32;CN={cn};PW=123456;MN={MN};Flag=5;{head}CP=&&{body}&&".encode())


def readings(body: str, cn: str = "2011") -> list[tuple[str, float, int]]:
    found = message(f"DataTime=20160801085857;{body}", cn)
    statements = read(found, STATION, found.value("DataTime"))
    assert [reject for statement in statements for reject in statement.rejects] == []
    return [(item.metric, item.value, item.quality) for statement in statements for item in statement.readings]


def test_real_time_data() -> None:
    found = message("DataTime=20160801085857; w01018-Rtd=20.5,w01018-Flag=N;LA-Rtd=50.1")
    statements = read(found, STATION, found.value("DataTime"))
    assert [item for statement in statements for item in statement.readings] == [
        Reading("river-3", "cod_mg_l", AT_US, 20.5),
        Reading("river-3", "noise_la_db", AT_US, 50.1),
    ]


def test_minute_hour_and_day_data_say_so_in_their_names() -> None:
    body = "a34004-Cou=0.5,a34004-Min=0.01,a34004-Avg=0.02,a34004-Max=0.03,a34004-ZsAvg=0.04,a34004-Flag=N"
    for cn, period in (("2051", "minute"), ("2061", "hour"), ("2031", "day")):
        assert readings(body, cn) == [
            (f"pm2_5_{period}_total_kg", 0.5, GOOD),
            (f"pm2_5_{period}_min_mg_m3", 0.01, GOOD),
            (f"pm2_5_{period}_avg_mg_m3", 0.02, GOOD),
            (f"pm2_5_{period}_max_mg_m3", 0.03, GOOD),
            (f"pm2_5_{period}_zs_avg_mg_m3", 0.04, GOOD),
        ]
    assert readings("a21026-ZsRtd=3") == [("so2_zs_mg_m3", 3.0, GOOD)]
    assert readings("SB1-RS=1", "2021") == [("SB1_rs", 1.0, GOOD)]
    assert readings("SB1-RT=1.1", "2041") == [("SB1_day_rt_h", 1.1, GOOD)]


def test_unknown_and_own_factors() -> None:
    assert readings("w99999-Rtd=1;zz1-Rtd=1500;Lng=116.5") == [
        ("w99999", 1.0, GOOD), ("own_v", 1.5, GOOD), ("Lng", 116.5, GOOD),
    ]  # fmt: skip
    assert readings("zz1-Cou=1500", "2061") == [("own_hour_total", 1500.0, GOOD)]


@pytest.mark.parametrize(
    ("flag", "quality"),
    [
        ("N", GOOD), ("n", GOOD), ("F", BAD), ("M", BAD | TEST), ("S", UNCERTAIN | SUBSTITUTED), ("D", BAD),
        ("C", BAD | TEST), ("T", UNCERTAIN | OUT_OF_RANGE), ("B", BAD), ("?", UNCERTAIN), ("", GOOD),
    ],
)  # fmt: skip
def test_flags_become_quality(flag: str, quality: int) -> None:
    assert readings(f"w01001-Rtd=7.1,w01001-Flag={flag}") == [("ph", 7.1, quality)]


def test_an_instrument_that_says_it_is_broken_may_have_no_value() -> None:
    ((metric, value, quality),) = readings("w01001-Rtd=,w01001-Flag=D")
    assert (metric, quality) == ("ph", BAD)
    assert math.isnan(value)


def test_a_bad_value_costs_only_itself() -> None:
    found = message(
        "DataTime=20160801085857;w01001-Rtd=,w01001-Flag=N;w01018-Rtd=1_0;w21003-Rtd=inf;LA-Rtd=5;LA-Rtd=6;a!-Rtd=1"
    )
    statements = read(found, STATION, found.value("DataTime"))
    assert [item.metric for statement in statements for item in statement.readings] == ["noise_la_db"]
    assert [(item.reason, item.where) for statement in statements for item in statement.rejects] == [
        ("not-a-number", "CP.w01001-Rtd"), ("not-a-number", "CP.w01018-Rtd"), ("not-a-number", "CP.w21003-Rtd"),
        ("repeated-field", "CP.LA-Rtd"), ("bad-metric", "CP.a!-Rtd"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("w01018-Rtd=1", "no-time"), ("DataTime=2016;w01018-Rtd=1", "bad-time"),
        ("DataTime=20161301000000;a-Rtd=1", "bad-time"),
        ("DataTime=20160801085857", "empty"), ("DataTime=20160801085857;w01018-Flag=N", "empty"),
    ],
)  # fmt: skip
def test_a_message_without_time_or_values(body: str, reason: str) -> None:
    found = message(body)
    with pytest.raises(DecodeError) as caught:
        read(found, STATION, found.value("DataTime"))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no-parameters"), (b"MN=1;CN=2011;CP=&&a=1", "no-parameters"), (b"CN=2011;CP=&&&&", "no-field"),
        (b"MN=1;CP=&&&&", "no-field"), (b"MN=1;CN=2011;Flag=999;CP=&&&&", "bad-number"),
        (b"MN=1;CN=2011;Flag=x;CP=&&&&", "bad-number"), (b"MN=1;CN=2011;Flag=7;PNUM=-1;CP=&&&&", "bad-number"),
    ],
)  # fmt: skip
def test_a_segment_that_is_none(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        parse(data)
    assert caught.value.reason == reason


def test_heads_of_both_versions() -> None:
    old = parse(b"ST=31;CN=2011;PW=123456;MN=63010000020001;CP=&&DataTime=20200108143205;B02-Rtd=9.8&&")
    assert (old.qn, old.flag, old.wants_answer) == ("", 0, False)
    new = message("", head=" PNUM=2; PNO=1;")
    assert (new.pnum, new.pno) == (0, 0), "without bit 1 of Flag they mean nothing"
    split = parse(b"MN=1;CN=2051;Flag=7;PNUM=2;PNO=1;CP=&&&&")
    assert (split.pnum, split.pno, answer_to(split, "9014").flag) == (2, 1, 4)


def test_every_metric_of_the_table_is_an_identifier_and_no_two_are_the_same() -> None:
    kinds = ("Rtd", "ZsRtd", "Min", "Avg", "Max", "ZsMin", "ZsAvg", "ZsMax", "Cou")
    names = [
        metric_of(factor, period, kind)
        for factor in FACTORS.values()
        for period in set(PERIODS.values())
        for kind in kinds
    ]
    assert all(is_id(name) for name in names)
    assert len(set(names)) == len(names)


# --- repetitions ---


def statements(body: str) -> list[Statement]:
    found = message(f"DataTime=20160801085857;{body}")
    return read(found, STATION, found.value("DataTime"))


def test_a_repetition_is_known_by_factor_however_it_is_packed() -> None:
    told, group = Told([MN]), group_name(message(""), "20160801085857")
    both = statements("w01018-Rtd=1,w01018-Flag=N;w21003-Rtd=2")
    assert told.fresh(MN, group, both) == both
    told.add(MN, group, [both[0].name])
    assert told.fresh(MN, group, both) == both[1:]
    told.add(MN, group, [both[1].name])
    assert told.fresh(MN, group, statements("w21003-Rtd=2")) == []
    corrected = statements("w21003-Rtd=2.5;w01018-Rtd=1,w01018-Flag=N")
    assert told.fresh(MN, group, corrected) == corrected[:1]
    assert token_of(both) == token_of(both[::-1]) != token_of(corrected)
    assert told.fresh(MN, group_name(message(""), "20160801085858"), both) == both


def test_what_was_told_survives_a_restart_and_stays_bounded() -> None:
    told = Told([MN, "2"], groups_max=100)
    for number in range(200):
        told.add(MN, b"%08d" % number, [b"name"])
    told.add("2", b"of the 2", [b"n"])
    later = Told([MN, "2", "3"], groups_max=100)
    assert later.load(told.dump())
    known = [number for number in range(200) if not later.fresh(MN, b"%08d" % number, [Statement(b"name", (), ())])]
    assert known == list(range(200 - 33, 200))
    assert later.fresh("2", b"of the 2", [Statement(b"n", (), ())]) == []
    assert not Told([MN]).load(b"\xff nonsense")


# --- requests ---


def said(cn: str, body: str, qn: str = "q") -> Message:
    return parse(f"QN={qn};ST=91;CN={cn};PW=1;MN={MN};Flag=4;CP=&&{body}&&".encode())


def test_an_exchange_that_asks() -> None:
    exchange = Exchange(clock_query(), "q")
    assert not exchange.take(said("9011", "QnRtn=1", "other"))
    assert exchange.take(said("9011", "QnRtn=1"))
    assert exchange.take(said("1011", "PolId=w01018;SystemTime=20160801085857"))
    assert exchange.reply is None
    assert exchange.take(said("9012", "ExeRtn=1"))
    assert exchange.reply == Reply("done", {"PolId": "w01018", "SystemTime": "20160801085857"})


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ([("9011", "QnRtn=3")], "wrong-password"), ([("9011", "QnRtn=77")], "code-77"), ([("9011", "")], "no-code"),
        ([("9011", "QnRtn=1"), ("9012", "ExeRtn=5")], "busy"), ([("9012", "ExeRtn=1")], "done"),
    ],
)  # fmt: skip
def test_an_exchange_that_sets(answers: list[tuple[str, str]], outcome: str) -> None:
    exchange = Exchange(interval_set(60), "q")
    for cn, body in answers:
        assert exchange.take(said(cn, body))
    assert exchange.reply == Reply(outcome)


def test_an_exchange_that_is_not_answered() -> None:
    exchange = Exchange(clock_set(AT_US, SHANGHAI), "q")
    assert exchange.request.items == (("SystemTime", "20160801085857"),)
    assert exchange.give_up() == Reply("no-answer")
    exchange.take(said("9011", "QnRtn=1"))
    assert exchange.give_up() == Reply("no-result")


# --- bounds and settings ---


def test_an_allowance_is_refilled_slowly_and_forgets_nobody_it_needs() -> None:
    allowance = Allowance()
    assert sum(allowance.take("a", 0.0) for _ in range(50)) == BURST
    assert allowance.take("b", 0.0)
    assert sum(allowance.take("a", 3 * EVERY_S) for _ in range(50)) == 3
    for number in range(1_000):
        allowance.take(str(number), 0.0)
    assert len(allowance._left) == SOURCES_MAX


def mistake(folder: Path, text: str) -> str:
    path = folder / "citynet.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(GatewaySettings, path)
    return str(caught.value)


def test_mistakes_in_the_settings_are_told_all_at_once(tmp_path: Path) -> None:
    text = mistake(
        tmp_path,
        '[gateway.hj212]\nhost = "everywhere"\nzone = "Mars/North"\nstations = [{ mn = "x y", device = "a b" }]\n'
        'factors = [{ code = "w1", metric = "a", scale = "much" }]\n',
    )
    for place in ("host", "zone", "stations.0.mn", "stations.0.device", "factors.0.scale"):
        assert f"gateway.hj212.{place}: " in text
    twice = '[[gateway.hj212.stations]]\nmn = "1"\ndevice = "a"\n' * 2
    assert "mn 1 is there twice" in mistake(tmp_path, twice)
