"""Commands and pushed configuration: a real gateway, a real broker, and the operator's own command line."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from citynet import control, topics
from citynet.control import Command, CommandResult
from citynet.runtime import child
from tests.gateway import DEADLINE_S, GATEWAY, wait_for
from tests.integration.test_gateway_interlocks import GAS, Cabinet


class Office(Cabinet):
    """A cabinet, and an operator far away."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.results: list[CommandResult] = []
        ready = threading.Event()
        self._operator = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="operator", protocol=paho.MQTTv5)
        self._operator.on_connect = lambda *_: self._operator.subscribe(topics.command_result(GATEWAY), 1)
        self._operator.on_subscribe = lambda *_: ready.set()
        self._operator.on_message = lambda _client, _data, message: self.results.append(
            control.decode(bytes(message.payload), CommandResult)
        )
        self._operator.connect("127.0.0.1", self.uplink.port)
        self._operator.loop_start()
        assert ready.wait(DEADLINE_S)
        (folder / "operator.toml").write_text(f"[broker]\nport = {self.uplink.port}\n")

    def close(self) -> None:
        self._operator.disconnect()
        self._operator.loop_stop()
        super().close()

    def run(self, *interlocks: dict[str, object], **settings: object) -> None:
        super().run(*interlocks, **settings)
        wait_for(lambda: self.server.statuses and self.server.statuses[-1].online, "online")

    def say(self, ident: str, kind: str, *, within_s: float = 30.0, retain: bool = False, **args: Any) -> None:
        deadline_us = time.time_ns() // 1000 + round(within_s * 1_000_000)
        payload = control.encode(Command(ident, kind, deadline_us, args))
        self._operator.publish(topics.command(GATEWAY), payload, qos=1, retain=retain)

    def insist(self, ident: str, kind: str, **args: Any) -> CommandResult:
        """Say it until it is answered: a gateway whose link is not up yet hears nothing."""

        def answered() -> bool:
            self.say(ident, kind, **args)
            return any(item.id == ident for item in self.results)

        wait_for(answered, f"an answer to {ident}")
        return self.answer(ident)

    def told(self, code: str, count: int) -> None:
        """The server has so many events of this kind, and no more; they come beside the results."""
        wait_for(lambda: len(self.server.events(code)) >= count, f"{count} times {code}")
        assert len(self.server.events(code)) == count

    def answer(self, ident: str, *states: str) -> CommandResult:
        """The first result of this command that is final, or of these states."""

        def found() -> list[CommandResult]:
            return [
                item
                for item in self.results
                if item.id == ident and (item.state in states if states else item.state != "trial")
            ]

        result: CommandResult = wait_for(found, f"an answer to {ident}")[0]
        return result

    def order(self, *words: str, timeout_s: int = 30) -> tuple[int, dict[str, Any]]:
        """``citynet gateway command``: exit status and result."""
        done = subprocess.run(
            [
                sys.executable, "-m", "citynet", "gateway", "command", GATEWAY, *words, "--json", "--timeout", str(timeout_s),
                "--config", str(self.folder / "operator.toml"),
            ],
            capture_output=True,
            check=False,
            timeout=90,
            text=True,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout) if done.stdout else {"error": done.stderr}

    def local(self, verb: str) -> Any:
        """``citynet gateway config show|history`` on the gateway."""
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "citynet",
                "gateway",
                "config",
                verb,
                "--json",
                "--config",
                str(self.gateway.config),
            ],
            capture_output=True,
            check=True,
            timeout=DEADLINE_S,
        )
        return json.loads(done.stdout)


@pytest.fixture
def office(folder: Path) -> Iterator[Office]:
    found = Office(folder)
    yield found
    found.close()


def with_lamp(office: Office) -> Path:
    """A gateway with a lamp that no interlock owns."""
    lamp = office.folder / "lamp"
    lamp.write_text("0\n")
    outputs: list[dict[str, object]] = [
        {"kind": "file", "name": "fan", "path": str(office.fan)},
        {"kind": "file", "name": "lamp", "path": str(lamp)},
    ]  # fmt: skip
    office.configure(interlocks=[GAS | {"latch": True}], outputs=outputs)
    office.start()
    wait_for(lambda: office.server.statuses and office.server.statuses[-1].online, "online")
    return lamp


def test_an_operator_switches_reads_and_resets(office: Office) -> None:
    lamp = with_lamp(office)
    assert office.order("write-output", "output=lamp", "on=true")[1]["state"] == "done"
    assert lamp.read_text().strip() == "1"
    status, result = office.order("read-now", "output=lamp")
    assert (status, result["data"]) == (0, {"output": "lamp", "on": True})
    status, result = office.order("write-output", "output=fan", "on=false")
    assert (status, result["state"], result["reason"]) == (1, "refused", "output fan belongs to an interlock")
    office.device.send_all([{"ch4": 99.0}])
    office.wait_values(1)  # the gateway knows of it
    assert "beyond the limit" in office.order("interlock-reset", "name=gas-high")[1]["reason"]
    office.device.send_all([{"ch4": 1.0}])
    office.wait_values(2)
    assert office.order("interlock-reset", "name=gas-high")[0] == 0
    office.wait_fan(False)
    office.told("command-done", 2)  # what changed something is in the books
    office.told("command-refused", 2)


def test_what_cannot_be_done_is_refused_with_a_reason(office: Office) -> None:
    office.run()
    for ident, kind, args, reason in (
        ("a", "dance", {}, "no command of this kind"),
        ("b", "write-output", {"output": "none", "on": True}, "no output is called none"),
        ("c", "write-output", {"output": "fan"}, "needs the argument on"),
        ("d", "write-output", {"output": "fan", "on": 1}, "argument on: '1' is of the wrong type"),
        ("e", "read-now", {}, "no driver polls anything"),
        ("f", "interlock-reset", {"name": "no-such"}, "no interlock is called no-such"),
        ("g", "config-get", {"x": 1}, "has no argument 'x'"),
    ):
        office.say(ident, kind, **args)
        result = office.answer(ident)
        assert (result.state, reason in result.reason) == ("refused", True), result
    office.say("late", "write-output", within_s=-5, output="fan", on=True)
    assert "expired" in office.answer("late").reason
    office.say("kept", "write-output", retain=True, output="fan", on=True)
    office.say("last", "config-get")
    assert office.answer("last").state == "done"
    assert office.gateway.stop() == 0
    office.start()  # a retained command waits at the broker
    assert office.insist("after", "config-get").state == "done"
    assert {item.state for item in office.results if item.id == "kept"} <= {"refused"}


def test_a_command_is_done_once_however_often_it_comes(office: Office) -> None:
    lamp = with_lamp(office)
    office.say("once", "write-output", output="lamp", on=True)
    assert office.answer("once").state == "done"
    lamp.write_text("0\n")
    before = len(office.results)
    for _ in range(3):
        office.say("once", "write-output", output="lamp", on=True)
    wait_for(lambda: len(office.results) == before + 3, "answered each time")
    office.gateway.kill()
    office.start()
    wait_for(lambda: len(office.gateway.events("gateway-started")) == 2 and office.server.statuses[-1].online, "online")

    def answered() -> bool:
        office.say("once", "write-output", output="lamp", on=True)  # a gateway that is not there yet hears nothing
        return len(office.results) > before + 3

    wait_for(answered, "answered by the next run")
    assert {item.state for item in office.results if item.id == "once"} == {"done"}
    assert lamp.read_text() == "0\n"


@pytest.mark.parametrize(("failpoint", "written"), [("gateway.command-begun", "0"), ("gateway.command-done", "1")])
def test_killed_in_the_middle_it_is_not_done_again(office: Office, failpoint: str, written: str) -> None:
    lamp = with_lamp(office)
    office.gateway.kill()
    office.start(failpoint)

    def died() -> bool:
        office.say("risky", "write-output", output="lamp", on=True)
        return not office.gateway.alive

    wait_for(died, "the failpoint")
    assert lamp.read_text().strip() == written
    lamp.write_text("0\n")
    office.start()
    assert office.insist("risky", "write-output", output="lamp", on=True).state == "interrupted"
    assert lamp.read_text() == "0\n"


# --- pushed configuration


def test_a_configuration_is_pushed_tried_and_kept(office: Office) -> None:
    office.run()
    toml = office.folder / "pushed.toml"
    toml.write_text('[[gateway.sense]]\nmetrics = ["level"]\nunit_in = "m"\nunit_out = "cm"\n')
    status, result = office.order("config-push", "confirm_s=60", "--toml", str(toml), timeout_s=60)
    assert (status, result["state"], result["data"]) == (0, "done", {"serial": 1}), result
    office.device.send_all([{"level": 2.0}])
    assert office.wait_values(1) == [200.0]
    assert office.local("show") == {"serial": 1, "toml": toml.read_text(), "trial": None}
    assert [item["verdict"] for item in office.local("history")] == ["applied"]
    # It is still there after a kill, and a change of a part leaves the rest.
    office.gateway.kill()
    office.start()
    more = "[gateway]\nheartbeat_s = 0.2\n"
    assert office.insist("sampling", "change-sampling", toml=more, confirm_s=60).state == "done"
    wait_for(lambda: any(row[3].endswith("gateway_uptime_s") for row in office.server.stored), "the heartbeat")
    office.device.send_all([{"level": 3.0}])
    wait_for(lambda: 300.0 in office.server.values(), "the sense stays")
    assert office.server.events("command-done"), "and all of it is in the books"


def test_a_wrong_configuration_is_refused_as_a_whole(office: Office) -> None:
    office.run()
    for ident, toml, said in (
        ("syntax", "[gateway\n", "pushed configuration: "),
        ("fixed", "[gateway]\nid = 'other'\ndata_dir = '/x'\n", "gateway.data_dir: cannot be changed from afar"),
        ("table", "[log]\nlevel = 'debug'\n", "only the table [gateway] can be pushed"),
        ("unknown", "[gateway]\nheartbeat_s = 1.0\nno_such = 1\n", "gateway.no_such"),
        ("value", "[gateway]\nheartbeat_s = -1.0\nwindow = 0\n", "gateway.window"),
        ("output", "[[gateway.interlocks]]\nname='a'\ndevice='d'\nmetric='m'\nabove=1.0\noutput='none'\n", "no output"),
    ):
        office.say(ident, "config-push", toml=toml)
        result = office.answer(ident)
        assert (result.state, said in result.reason) == ("refused", True), result
    assert len(office.gateway.events("gateway-started")) == 1
    assert office.local("history") == []


def test_without_a_link_a_configuration_is_rolled_back(office: Office) -> None:
    office.run()
    toml = f"[gateway.uplink]\nport = {child.free_port()}\n[[gateway.sense]]\nmetrics = ['level']\nmax = 1.0\n"
    office.say("cut-off", "config-push", toml=toml, confirm_s=5)
    assert office.answer("cut-off", "trial").state == "trial"
    office.device.send_all([{"level": 2.0}])
    result = office.answer("cut-off")
    assert (result.state, result.reason) == ("rolled-back", "the link was not back within 5 s")
    assert office.wait_values(1) == [2.0]
    assert len(office.gateway.events("gateway-started")) == 3, "the old one, the trial, the old one again"
    assert [item["verdict"] for item in office.local("history")] == ["rolled-back"]
    assert office.local("show")["serial"] == 0
    (note,) = wait_for(lambda: office.server.events("command-rolled-back"), "it is in the books")
    assert "cut-off" in note.text


def test_a_gateway_that_dies_on_trial_comes_back_with_the_old_configuration(office: Office) -> None:
    office.run()
    toml = f"[gateway.uplink]\nport = {child.free_port()}\n"
    office.say("deadly", "config-push", toml=toml, confirm_s=600)
    wait_for(lambda: len(office.gateway.events("gateway-started")) == 2, "on trial")
    office.gateway.kill()
    office.start()
    result = office.answer("deadly")
    assert (result.state, result.reason) == ("rolled-back", "the gateway was restarted before the link was back")


def test_a_configuration_that_cannot_even_start_is_rolled_back(office: Office) -> None:
    office.run()
    office.say(
        "no-start", "config-push", toml="[gateway.uplink]\npassword_file = '/no/such'\nusername = 'x'\n", confirm_s=600
    )
    result = office.answer("no-start")
    assert result.state == "rolled-back"
    assert "/no/such" in result.reason


def test_the_operator_hears_when_nobody_answers(office: Office) -> None:

    def unanswered() -> bool:
        status, result = office.order("config-get", timeout_s=2)
        assert status == 1
        return f"no answer of {GATEWAY}" in result["error"]

    wait_for(unanswered, "the broker is there within 2 s, the gateway is not")
    (office.folder / "operator.toml").write_text(f"[broker]\nport = {child.free_port()}\n")
    assert "no broker at" in office.order("config-get", timeout_s=2)[1]["error"]
    assert office.order("Config Get")[0] == 2
