"""The configurations under deploy/ on real servers: Mosquitto with its access rules, PostgreSQL with its settings.

Messages are followed with retained copies of nothing: a subscriber that may read everything ("the witness" is ingest) tells
what got through, and a message that is allowed and sent last tells that the refused ones before it have been dealt with.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from citynet import topics
from citynet.runtime import child
from citynet.runtime.embedded import EmbeddedPostgres
from tests.patience import DEADLINE_S, wait_for

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PASSWORD = "p"

needs_tools = pytest.mark.skipif(
    child.program("mosquitto") is None
    or shutil.which("mosquitto_pub") is None
    or shutil.which("mosquitto_passwd") is None,
    reason="mosquitto and mosquitto-clients are not installed",
)


class Broker:
    """A broker that runs one of our configurations, with the paths and the port of a test."""

    def __init__(self, folder: Path, config: str, acl: str, users: list[str]) -> None:
        self.port = child.free_port()
        self._log = folder / "broker.log"
        passwords = folder / "passwd"
        passwords.touch()
        for user in users:
            subprocess.run(["mosquitto_passwd", "-b", str(passwords), user, PASSWORD], check=True, capture_output=True)
        rules = folder / "acl"
        rules.write_text((DEPLOY / "mosquitto" / acl).read_text(encoding="utf-8"), encoding="utf-8")
        lines = []
        for line in (DEPLOY / "mosquitto" / config).read_text(encoding="utf-8").splitlines():
            key = line.partition(" ")[0]
            replaced = {
                "listener": f"listener {self.port} 127.0.0.1",
                "password_file": f"password_file {passwords}",
                "acl_file": f"acl_file {rules}",
                "sys_interval": "sys_interval 1",
                "persistence_location": f"persistence_location {folder}/",
            }
            lines.append(replaced.get(key, line))
        self._config = folder / "mosquitto.conf"
        user = child.unprivileged_user()
        if user is not None:
            lines.append(f"user {user.pw_name}")
            for path in (folder, passwords, rules):
                shutil.chown(path, user.pw_uid, user.pw_gid)
        self._config.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._log.open("wb") as output:
            process = child.spawn([str(child.program("mosquitto")), "-c", str(self._config)], output)
            try:
                wait_for(lambda: child.listens(self.port) or process.poll() is not None, "the broker to listen")
                assert process.poll() is None, self.log()
                yield
            finally:
                child.stop(process)

    def _client(self, program: str, user: str) -> list[str]:
        return [
            program, "-V", "5", "-h", "127.0.0.1", "-p", str(self.port), "-u", user, "-P", PASSWORD, "-q", "1",
        ]  # fmt: skip

    def publish(self, user: str, topic: str, message: str) -> None:
        """Publish at QoS 1; returns when the broker has answered (a refusal is an answer too)."""
        subprocess.run(
            [*self._client("mosquitto_pub", user), "-t", topic, "-m", message],
            check=False,
            capture_output=True,
            timeout=DEADLINE_S,
        )

    @contextmanager
    def listening(self, user: str, pattern: str, folder: Path) -> Iterator[Path]:
        """A subscriber; the file holds a line ``topic message`` for everything it was given."""
        path = folder / f"heard-{user}"
        with path.open("wb") as output:
            command = ["stdbuf", "-oL", *self._client("mosquitto_sub", user), "-t", pattern, "-F", "%t %p", "-d"]
            process = child.spawn(command, output)
            try:
                wait_for(lambda: "SUBACK" in path.read_text(errors="replace"), f"{user} to be subscribed")
                yield path
            finally:
                child.stop(process)


def _heard(path: Path) -> list[str]:
    """The messages, without what the client says about itself."""
    lines = path.read_text(errors="replace").splitlines()
    return [line for line in lines if line.startswith(("citynet/", "field/"))]


@needs_tools
def test_a_gateway_writes_under_its_own_name_only(folder: Path) -> None:
    broker = Broker(folder, "mosquitto.conf", "acl", ["gw-1", "gw-2", "citynet-ingest"])
    allowed = [topics.up("gw-1"), topics.hello("gw-1"), topics.status("gw-1")]
    refused = [
        topics.up("gw-2"),
        topics.hello("gw-2"),
        topics.status("gw-2"),
        topics.command_result("gw-2"),
        topics.ack("gw-1"),
        topics.ack("gw-2"),
        topics.command("gw-1"),
        topics.dev("gw-2"),
        "citynet/v2/up/00/gw-1",
    ]
    with broker.running(), broker.listening("citynet-ingest", "citynet/#", folder) as heard:
        for topic in [*refused, *allowed]:
            broker.publish("gw-1", topic, "from-gw-1")
        broker.publish("gw-2", topics.up("gw-2"), "last")
        wait_for(lambda: f"{topics.up('gw-2')} last" in _heard(heard), "the last message")
        assert sorted(_heard(heard)) == sorted(
            [*(f"{topic} from-gw-1" for topic in allowed), f"{topics.up('gw-2')} last"]
        )


@needs_tools
def test_acknowledgements_reach_their_gateway_and_no_other(folder: Path) -> None:
    broker = Broker(folder, "mosquitto.conf", "acl", ["gw-1", "gw-2", "citynet-ingest"])
    with (
        broker.running(),
        broker.listening("gw-1", "citynet/#", folder) as first,
        broker.listening("gw-2", "citynet/#", folder) as second,
    ):
        broker.publish("citynet-ingest", topics.ack("gw-1"), "for-1")
        broker.publish("citynet-ingest", topics.command("gw-1"), "do")  # ingest gives no commands
        broker.publish("gw-1", topics.up("gw-1"), "data")  # nobody but ingest may read it
        broker.publish("citynet-ingest", topics.up("gw-1"), "forged")  # ingest answers, it does not send data
        broker.publish("citynet-ingest", topics.ack("gw-2"), "for-2")
        wait_for(lambda: _heard(second), "the acknowledgement of gw-2")
        wait_for(lambda: _heard(first), "the message for gw-1")
        assert _heard(second) == [f"{topics.ack('gw-2')} for-2"]
        assert _heard(first) == [f"{topics.ack('gw-1')} for-1"]


@needs_tools
def test_only_the_operator_commands_and_only_the_gateway_answers(folder: Path) -> None:
    broker = Broker(folder, "mosquitto.conf", "acl", ["gw-1", "gw-2", "citynet-operator", "citynet-monitor"])
    order, answer = topics.command("gw-1"), topics.command_result("gw-1")
    with (
        broker.running(),
        broker.listening("gw-1", "citynet/#", folder) as obeys,
        broker.listening("gw-2", "citynet/#", folder) as other,
        broker.listening("citynet-operator", "citynet/#", folder) as operator,
    ):
        for user in ("gw-1", "gw-2", "citynet-monitor"):
            broker.publish(user, order, "forged")
        for user in ("gw-2", "citynet-operator"):
            broker.publish(user, answer, "forged")
        broker.publish("citynet-operator", topics.ack("gw-1"), "forged")
        broker.publish("gw-1", topics.up("gw-1"), "data")  # not the operator's to read
        broker.publish("citynet-operator", order, "do")
        broker.publish("gw-1", answer, "done")
        broker.publish("gw-1", topics.status("gw-1"), "online")
        wait_for(lambda: len(_heard(operator)) >= 2, "the answer")
        wait_for(lambda: _heard(obeys), "the command")
        assert _heard(obeys) == [f"{order} do"]
        assert _heard(operator) == [f"{answer} done", f"{topics.status('gw-1')} online"]
        assert _heard(other) == []


@needs_tools
def test_a_direct_device_and_strangers(folder: Path) -> None:
    broker = Broker(folder, "mosquitto.conf", "acl", ["meter-7", "citynet-ingest", "citynet-monitor"])
    with broker.running(), broker.listening("citynet-ingest", "citynet/#", folder) as heard:
        broker.publish("stranger", topics.dev("meter-7"), "no-account")
        broker.publish("citynet-monitor", topics.dev("meter-7"), "monitor")
        broker.publish("meter-7", topics.dev("meter-8"), "another-name")
        broker.publish("meter-7", topics.dev("meter-7"), "own-name")
        wait_for(lambda: _heard(heard), "the device's message")
        assert _heard(heard) == [f"{topics.dev('meter-7')} own-name"]


@needs_tools
def test_ingest_hears_what_the_broker_dropped_and_gateways_do_not(folder: Path) -> None:
    broker = Broker(folder, "mosquitto.conf", "acl", ["gw-1", "citynet-ingest"])
    with (
        broker.running(),
        broker.listening("gw-1", "$SYS/#", folder) as stranger,
        broker.listening("citynet-ingest", "$SYS/#", folder) as heard,
    ):
        wait_for(lambda: f"{topics.BROKER_DROPPED} 0" in heard.read_text(errors="replace"), "the broker's counter")
        lines = [line for line in heard.read_text(errors="replace").splitlines() if line.startswith("$SYS")]
        assert {line.split()[0] for line in lines} == {topics.BROKER_DROPPED}
        assert "$SYS/broker" not in stranger.read_text(errors="replace").replace("(Subscribed", "").replace(
            "$SYS/#", ""
        )


@needs_tools
def test_the_http_front_publishes_for_sources_and_hears_replies_only(folder: Path) -> None:
    broker = Broker(folder, "mosquitto.conf", "acl", ["gw-1", "citynet-push", "citynet-ingest"])
    reply = topics.reply("push-1")
    with (
        broker.running(),
        broker.listening("citynet-ingest", "citynet/#", folder) as heard,
        broker.listening("citynet-push", "citynet/#", folder) as answered,
    ):
        for topic in (topics.dev("gw-1"), topics.ack("gw-1"), reply, topics.status("gw-1")):
            broker.publish("citynet-push", topic, "refused")
        broker.publish("gw-1", reply, "forged")  # who sends data says nothing about its fate
        broker.publish("gw-1", topics.push("gw-1"), "refused")
        broker.publish("citynet-push", topics.up("gw-1"), "batch")
        broker.publish("citynet-ingest", reply, "committed")
        broker.publish("citynet-push", topics.push("lora-1"), "pushed")
        wait_for(lambda: len(_heard(heard)) >= 2, "the messages of the front")
        wait_for(lambda: _heard(answered), "the reply")
        assert _heard(heard) == [f"{topics.up('gw-1')} batch", f"{topics.push('lora-1')} pushed"]
        assert _heard(answered) == [f"{reply} committed"]


@needs_tools
def test_the_field_broker_lets_a_device_speak_for_itself_and_the_gateway_listen(folder: Path) -> None:
    broker = Broker(folder, "field.conf", "field.acl", ["citynet-gateway", "pump-1", "pump-2"])
    with (
        broker.running(),
        broker.listening("citynet-gateway", "field/#", folder) as heard,
        broker.listening("pump-2", "field/#", folder) as other,
    ):
        broker.publish("pump-1", topics.field("field", "gw-1", "pump-2"), "forged")
        broker.publish("citynet-gateway", topics.field("field", "gw-1", "pump-1"), "forged")
        broker.publish("pump-1", topics.field("field", "gw-1", "pump-1"), "own")
        wait_for(lambda: _heard(heard), "the device's message")
        assert _heard(heard) == ["field/gw-1/pump-1 own"]
        assert _heard(other) == []


@needs_tools
def test_a_payload_above_the_limit_is_refused(folder: Path) -> None:
    broker = Broker(folder, "mosquitto.conf", "acl", ["gw-1", "citynet-ingest"])
    topic = topics.up("gw-1")
    largest, too_large = folder / "largest", folder / "too-large"
    largest.write_bytes(b"x" * (1 << 20))
    too_large.write_bytes(b"y" * 1_100_001)
    with broker.running(), broker.listening("citynet-ingest", "citynet/#", folder) as heard:
        for path in (too_large, largest):
            command = [*broker._client("mosquitto_pub", "gw-1"), "-t", topic, "-f", str(path)]
            subprocess.run(command, check=False, capture_output=True, timeout=DEADLINE_S)
        broker.publish("gw-1", topic, "last")
        wait_for(lambda: f"{topic} last" in _heard(heard), "the last message")
        assert [line.removeprefix(f"{topic} ")[:4] for line in _heard(heard)] == ["xxxx", "last"]


def test_postgres_takes_the_settings(folder: Path) -> None:
    lines = (DEPLOY / "postgres" / "citynet.conf").read_text(encoding="utf-8").splitlines()
    wanted = dict(line.split(" = ", 1) for line in lines if line and not line.startswith("#"))
    # A test machine may not have the memory; that the names and the other values are right is what matters.
    small = {"shared_buffers": "64MB", "wal_buffers": "4MB"}
    with EmbeddedPostgres(folder, {**wanted, **small}) as server, psycopg.connect(server.dsn()) as connection:
        for name, value in wanted.items():
            row = connection.execute("SELECT source FROM pg_settings WHERE name = %s", (name,)).fetchone()
            assert row == ("command line",), (name, value)
