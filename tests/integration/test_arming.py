"""Rules in shadow, rules that are not proved, and rules that change under a running worker."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_api.feed import ID_MAX, page_after
from citynet_ingest.store.arming import arm, retire_outlived
from citynet_rules.spec import load_rules
from tests.ingest import GatewayPeer, IngestProcess, ingest_running, now_us, query, wait_for
from tests.integration.api_harness import add_tokens, database, running

GUIDED = 'guidance_zh = "看"\nguidance_en = "Look."\n'


def rule(ident: str, more: str = GUIDED, *, limit: float = 10.0, version: int = 1) -> str:
    return f"""
[[rule]]
id = "{ident}"
version = {version}
kind = "limit"
domain = "gas"
metric = "ch4_lel"
unit = "%LEL"
direction = "high"
levels = {{ red = {limit} }}
standard = "s"
edition = "1"
status = "D"
title_zh = "x"
title_en = "x"
{more}"""


def cli(ingest: IngestProcess, *words: str) -> tuple[int, Any]:
    """``citynet rules … --json``: exit status and what it says."""
    command = [sys.executable, "-m", "citynet", "rules", *words, "--json", "--config", str(ingest.config)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120, text=True)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


class City:
    """A worker with one rule file, a gateway with one well, and the database behind them."""

    def __init__(self, ingest: IngestProcess, peer: GatewayPeer, path: Path, dsn: str) -> None:
        self.ingest, self.peer, self.path, self.dsn = ingest, peer, path, dsn
        self.seq = 0

    def say(self, value: float) -> None:
        self.seq += 1
        self.peer.send(self.seq, [Reading("well", "ch4_lel", now_us(), value)])
        self.peer.wait_acked(self.seq)

    def reload(self, text: str, word: str) -> None:
        """Write the rule file, tell the worker, and wait for `word` in its log."""
        before = self.ingest.log.read_text().count(word)
        self.path.write_text(text)
        self.ingest.running.send_signal(signal.SIGHUP)
        wait_for(lambda: self.ingest.log.read_text().count(word) > before, f"{word} in the log")

    def alerts(self) -> list[tuple[Any, ...]]:
        """Rule, version, mode, open, acknowledged by; in order of their recording."""
        return query(
            self.dsn,
            "SELECT rule_id, rule_version, mode, cleared_at IS NULL, acked_by FROM alert ORDER BY recorded_at, rule_id",
        )


@pytest.fixture
def city(folder: Path, broker: EmbeddedMosquitto, dsn: str) -> Iterator[City]:
    path = folder / "rules.toml"
    path.write_text(rule("high") + rule("trial", GUIDED + 'mode = "shadow"') + rule("bare", ""))
    settings = {"rules": [str(path)], "shipped_rules": False}
    with ingest_running(folder, broker, dsn, settings) as ingest:
        peer = GatewayPeer(broker.port)
        try:
            yield City(ingest, peer, path, dsn)
        finally:
            peer.close()


def test_shadow_is_kept_and_not_shown(city: City) -> None:
    city.say(20.0)
    assert city.alerts() == [
        ("bare", "1", "shadow", True, None), ("high", "1", "live", True, None), ("trial", "1", "shadow", True, None),
    ]  # fmt: skip
    status, listed = cli(city.ingest, "list")
    told = {entry["rule"]: (entry["mode"], entry["why_shadow"], entry["author"]) for entry in listed}
    assert status == 0
    assert told == {
        "bare": ("shadow", "has no guidance in Chinese; has no guidance in English", "worker 00-63"),
        "high": ("live", None, "worker 00-63"),
        "trial": ("shadow", None, "worker 00-63"),
    }
    assert "rule-in-shadow" in city.ingest.log.read_text()

    async def shown() -> None:
        async with running(city.dsn) as client:
            for asked, wanted in (
                ("", {"high"}),
                ("?mode=shadow", {"bare", "trial"}),
                ("?mode=all", {"bare", "high", "trial"}),
            ):
                items = (await client.get(f"/v1/alerts{asked}")).json()["items"]
                assert {(item["rule_id"]) for item in items} == wanted
                assert {item["mode"] for item in items} == {
                    "live" if item["rule_id"] == "high" else "shadow" for item in items
                }
            summary = (await client.get("/v1/summary")).json()
            assert summary["open_by_level"]["red"] == summary["unacked"] == summary["open_by_domain"]["gas"] == 1
            (device,) = (await client.get("/v1/devices")).json()["items"]
            assert device["open_alerts"] == 1
            (trial,) = [
                a for a in (await client.get("/v1/alerts?mode=shadow")).json()["items"] if a["rule_id"] == "trial"
            ]
            assert (await client.post(f"/v1/alerts/{trial['id']}/ack", json={})).status_code == 200
        connection = await psycopg.AsyncConnection.connect(city.dsn, row_factory=dict_row)
        async with connection:
            streamed = await page_after(connection, 0, ID_MAX, 100)
        rules = [json.loads(event.data)["alert"]["rule_id"] for event in streamed]
        assert rules == ["high"], "neither a raise nor an acknowledgement in shadow is sent"

    with database(city.dsn) as connection:
        add_tokens(connection)
    asyncio.run(shown())


def test_an_edited_rule_keeps_an_acknowledgement(city: City) -> None:
    city.say(20.0)
    with database(city.dsn) as connection:
        connection.execute("UPDATE alert SET acked_by = 'olga', acked_at = now() WHERE rule_id = 'high'")
    city.reload(rule("high", limit=15.0, version=2), "rules-armed")
    assert city.alerts()[1] == ("high", "1", "live", True, "olga"), "open until the new version has its say"
    assert [row[0] for row in city.alerts() if row[3]] == ["high"], "alerts of rules that are gone are closed"
    city.say(20.0)
    found = [row for row in city.alerts() if row[0] == "high"]
    assert found == [("high", "1", "live", False, "olga"), ("high", "2", "live", True, "olga")]
    city.say(1.0)
    assert not any(row[3] for row in city.alerts())
    # What decides as before goes on where it stands: the same alert, cleared by the next reading.
    city.say(20.0)
    city.reload(rule("high", limit=15.0, version=2).replace('title_en = "x"', 'title_en = "y"'), "rules-armed")
    city.say(1.0)
    kinds = query(city.dsn, "SELECT kind FROM alert_transition ORDER BY id DESC LIMIT 2")
    assert kinds == [("clear",), ("raise",)]


def test_a_mistake_changes_nothing_and_is_told(city: City) -> None:
    city.reload(rule("high").replace("red =", "pink ="), "rules-refused")
    kind, detail = wait_for(lambda: query(city.dsn, "SELECT kind, detail FROM system_event"), "it is told as well")[0]
    assert kind == "rules_refused"
    assert "high.levels" in detail
    city.reload(rule("high").replace("%LEL", "kPa"), "rules-refused")
    of_unit = "SELECT 1 FROM system_event WHERE kind = 'rules_refused' AND strpos(detail, %s) > 0"
    wait_for(lambda: query(city.dsn, of_unit, "high.unit: kPa is not the unit of ch4_lel"), "the unit is told")
    city.say(20.0)
    assert {row[0] for row in city.alerts()} == {"high", "trial", "bare"}
    city.reload(rule("high"), "rules-armed")
    assert [row[0] for row in city.alerts() if row[3]] == ["high"]


def test_what_is_not_proved_needs_somebody_who_answers_for_it(city: City) -> None:
    words = ("arm", str(city.path), "--author", "li", "--reason", "spring")
    assert cli(city.ingest, *words) == (
        1,
        {
            "ok": False, "rules": ["high", "trial", "bare"], "not_in_settings": [],
            "refused": {"bare": ["has no guidance in Chinese", "has no guidance in English"]},
        },
    )  # fmt: skip
    assert query(city.dsn, "SELECT count(*) FROM rule_arming WHERE author = 'li'") == [(0,)]
    city.say(20.0)
    status, answer = cli(city.ingest, *words, "--override", "wang: until the handbook is written")
    assert (status, answer["ok"]) == (0, True)
    assert query(
        city.dsn, "SELECT rule_id, override_by, override_reason, refusals FROM rule_arming WHERE author = 'li' ORDER BY id"
    ) == [
        ("high", None, None, []), ("trial", None, None, []),
        ("bare", "wang", "until the handbook is written", ["has no guidance in Chinese", "has no guidance in English"]),
    ]  # fmt: skip
    city.reload(city.path.read_text(), "rule-overridden")
    wait_for(lambda: ("bare", "1", "live", True, None) in city.alerts(), "the open alert is shown")
    last = query(city.dsn, "SELECT kind, mode, comment FROM alert_transition ORDER BY id DESC LIMIT 1")
    assert last == [("raise", "live", "the rule is live now")]
    listed = {entry["rule"]: entry for entry in cli(city.ingest, "list")[1]}
    assert (listed["bare"]["mode"], listed["bare"]["author"], listed["bare"]["reason"]) == ("live", "li", "spring")
    assert listed["bare"]["override"] == "wang: until the handbook is written"
    # An override is of this very text.
    city.reload(city.path.read_text().replace('id = "bare"\nversion = 1', 'id = "bare"\nversion = 2'), "rule-in-shadow")
    wait_for(lambda: not [row for row in city.alerts() if row[:4] == ("bare", "1", "live", True)], "it is taken back")


def test_a_score_below_the_floor_is_refused(city: City, folder: Path) -> None:
    """Scores are kept for what decides: guidance may change, limits may not."""
    start = 1_767_225_600_000_000
    incident = {
        "id": "leak", "domain": "gas", "metric": "ch4_lel", "devices": ["a"], "start_us": start + 60_000_000,
        "end_us": start + 120_000_000, "expected_rule": "good", "expected_level": "red",
    }  # fmt: skip
    header = {
        "t": "header", "v": 1, "started_at_us": start, "gateways": ["gw"], "incidents": [incident],
        "devices": [{"device": "a", "gateway": "gw", "series": [{"metric": "ch4_lel"}]}],
    }  # fmt: skip
    truth, recorded, path = folder / "truth", folder / "readings", folder / "good.toml"
    truth.write_text(json.dumps(header) + "\n")
    values = [1.0] * 12 + [20.0] * 6 + [1.0] * 1000 + [30.0, 1.0]
    lines = ({"time_us": start + 10_000_000 * k, "device": "a", "values": {"ch4_lel": v}} for k, v in enumerate(values))
    recorded.write_text("".join(json.dumps(line) + "\n" for line in lines))
    floor = GUIDED + "score_floor = { precision = 0.9, recall = 1.0 }\n"
    path.write_text(rule("good", floor))
    armed = ("arm", str(path), "--author", "li", "--reason", "spring")
    scored = ("score", "--truth", str(truth), "--recorded", str(recorded), "--rules", str(path), "--keep-by", "li")
    assert cli(city.ingest, *armed)[1]["refused"] == {"good": ["has a score_floor and no kept score"]}
    assert cli(city.ingest, *scored)[1]["rules"]["good"]["precision"] == 0.5
    status, answer = cli(city.ingest, *armed)
    assert (status, answer["refused"]) == (1, {"good": ["its last precision is 0.5, its floor is 0.9"]})
    path.write_text(rule("good", floor + "on_delay_s = 20\n"))
    assert cli(city.ingest, *scored)[1]["rules"]["good"]["precision"] == 1.0
    status, answer = cli(city.ingest, *armed)
    assert (status, answer["not_in_settings"]) == (0, [str(path)])
    path.write_text(rule("good", floor + "on_delay_s = 25\n"))
    assert cli(city.ingest, *armed)[0] == 1, "another delay is another rule"


def test_an_alert_that_an_edited_rule_does_not_raise_again_ends(folder: Path, dsn: str) -> None:
    path = folder / "rules.toml"
    path.write_text(rule("high", GUIDED + "on_delay_s = 600\n"))
    with database(dsn) as connection:
        arm(connection, load_rules([path]), "w")
        connection.execute("INSERT INTO device (name, source) VALUES ('a', 'gw')")
        connection.execute("INSERT INTO series (device_id, metric) SELECT id, 'm' FROM device")
        connection.execute(
            "INSERT INTO alert (id, rule_id, rule_version, domain, object, series_id, level, level_max, raised_at, changed_at,"
            " title_zh, title_en, text_zh, text_en, recorded_at) SELECT 'x', 'high', '1', 'gas', 'a', id, 4, 4, now(), now(),"
            " '', '', '', '', now() - interval '2 hours' FROM series"
        )
        connection.execute("UPDATE rule SET armed_at = now() - interval '3 hours'")
        assert retire_outlived(connection) == 0, "raised by the rule as it is"
        arm(connection, load_rules([path]), "w")
        assert retire_outlived(connection) == 0, "armed anew and not edited"
        path.write_text(rule("high", GUIDED + "on_delay_s = 600\n", limit=11.0))
        with connection.transaction():  # in which the database's clock stands still
            arm(connection, load_rules([path]), "w")
            connection.execute("UPDATE rule SET armed_at = armed_at - interval '1490 seconds'")
            assert retire_outlived(connection) == 0, "its on-delay and a quarter of an hour are not over"
            connection.execute("UPDATE rule SET armed_at = armed_at - interval '20 seconds'")
            assert retire_outlived(connection) == 1
        assert connection.execute("SELECT kind FROM alert_transition").fetchall() == [("supersede",)]
