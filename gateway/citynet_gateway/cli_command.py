"""``citynet gateway command`` for operators, and ``citynet gateway config`` on the gateway itself."""

from __future__ import annotations

import json
import secrets
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Annotated, Any

import msgspec
import paho.mqtt.client as paho
import typer
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from citynet import control, topics
from citynet.control import Command, CommandResult
from citynet.errors import CitynetError, DecodeError
from citynet.ids import is_id
from citynet.runtime.command import ConfigOption, JsonOption, command
from citynet.runtime.settings import BrokerEndpoint, BrokerSettings, load
from citynet_gateway.mqtt import KEEPALIVE_S, leave, new_client
from citynet_gateway.pushed_config import read_state
from citynet_gateway.settings import GatewaySettings
from citynet_gateway.spool.files import LocalFiles

REPEAT_S = 3.0

config_app = typer.Typer(no_args_is_help=True, help="What was pushed to this gateway; reads only.")


@command
def command_gateway(
    gateway: Annotated[str, typer.Argument(help="Identifier of the gateway.")],
    kind: Annotated[
        str,
        typer.Argument(help="read-now, write-output, change-sampling, interlock-reset, config-get or config-push."),
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="NAME=VALUE for each argument; a value is JSON, or else text.")
    ] = None,
    toml: Annotated[Path | None, typer.Option(help="File with the TOML of config-push or change-sampling.")] = None,
    ident: Annotated[
        str | None, typer.Option("--id", help="Name of this command; the same one is never carried out twice.")
    ] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=1, max=7_200, help="How long to wait for the end.")
    ] = 30.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have a gateway do something and wait for the result, over the broker of the table broker. Exit 1 unless it was done."""
    if not is_id(gateway):
        raise typer.BadParameter("must be 1..64 of A-Z a-z 0-9 . _ -", param_hint="GATEWAY")
    args = _arguments(arguments or [])
    if toml is not None:
        try:
            args["toml"] = toml.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CitynetError(f"{toml}: {error}") from None
    deadline_us = time.time_ns() // 1000 + round(timeout_s * 1_000_000)
    order = Command(ident or f"op-{secrets.token_hex(8)}", kind, deadline_us, args)
    try:
        control.decode(control.encode(order), Command)
    except DecodeError as error:
        raise typer.BadParameter(str(error)) from None
    result = _Caller(load(BrokerSettings, config).endpoint(), gateway, order, timeout_s, is_quiet=as_json).call()
    if as_json:
        print(msgspec.json.encode(result).decode())
    else:
        print(f"{result.kind} {result.id}: {result.state}" + (f": {result.reason}" if result.reason else ""))
        for name, value in result.data.items():
            print(f"  {name}: {value if isinstance(value, str) else json.dumps(value)}")
    if result.state != "done":
        raise typer.Exit(1)


def _arguments(words: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{word!r} is not NAME=VALUE")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


class _Caller:
    """One command over one session: published until its result is there, because a gateway that was away heard nothing."""

    def __init__(
        self, endpoint: BrokerEndpoint, gateway: str, order: Command, timeout_s: float, *, is_quiet: bool
    ) -> None:
        self._endpoint = endpoint
        self._gateway = gateway
        self._order = order
        self._end_s = time.monotonic() + timeout_s
        self._is_quiet = is_quiet
        self._result: CommandResult | None = None
        self._refusal = ""
        self._is_on_trial = False
        self._changed = threading.Condition()
        self._is_ready = False
        random = Random(secrets.randbits(64))  # noqa: S311  (jitter)
        self._client = new_client(endpoint, f"citynet-command-{secrets.token_hex(6)}", random, manual_ack=False)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish

    def call(self) -> CommandResult:
        """The result. CitynetError if there is none in time, or the broker refuses."""
        self._client.connect_async(self._endpoint.host, self._endpoint.port, keepalive=KEEPALIVE_S, clean_start=True)
        self._client.loop_start()
        try:
            return self._wait()
        finally:
            leave(self._client)

    def _wait(self) -> CommandResult:
        repeat_s = 0.0
        with self._changed:
            while self._result is None:
                now_s = time.monotonic()
                if self._refusal:
                    raise CitynetError(f"broker {self._endpoint.host}:{self._endpoint.port}: {self._refusal}")
                if now_s >= self._end_s:
                    raise CitynetError(self._why_nothing())
                if self._is_ready and now_s >= repeat_s:
                    repeat_s = now_s + REPEAT_S
                    self._publish()
                self._changed.wait(min(0.5, self._end_s - now_s))
            return self._result

    def _why_nothing(self) -> str:
        if not self._is_ready:
            return f"no broker at {self._endpoint.host}:{self._endpoint.port}"
        if self._is_on_trial:
            return f"{self._gateway} still tries the configuration; ask again with --id {self._order.id}"
        return f"no answer of {self._gateway}; it may still do it: ask again with --id {self._order.id}"

    def _publish(self) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = max(1, round(self._end_s - time.monotonic()))
        self._client.publish(topics.command(self._gateway), control.encode(self._order), qos=1, properties=properties)

    def _on_connect(self, client: paho.Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if reason.is_failure:
            self._refuse(str(reason))
            return
        client.subscribe(topics.command_result(self._gateway), qos=1)

    def _on_subscribe(
        self, _client: paho.Client, _data: object, _mid: int, reasons: list[Any], _properties: object
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            self._refuse(f"may not read results: {reasons[0]}")
            return
        with self._changed:
            self._is_ready = True
            self._changed.notify()

    def _on_publish(self, _client: paho.Client, _data: object, _mid: int, reason: Any, _properties: object) -> None:
        if reason.is_failure:
            self._refuse(f"may not send commands: {reason}")

    def _refuse(self, reason: str) -> None:
        with self._changed:
            self._refusal = reason
            self._changed.notify()

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        try:
            result = control.decode(bytes(message.payload), CommandResult)
        except DecodeError:
            return
        if result.id != self._order.id:
            return
        with self._changed:
            if result.state == "trial":
                if not self._is_on_trial and not self._is_quiet:
                    print(f"{result.kind} {result.id}: on trial")
                self._is_on_trial = True
                return
            self._result = result
            self._changed.notify()


DataDirOption = Annotated[Path | None, typer.Option("--data-dir", help="Folder of the spool.")]


@config_app.command("show")
@command
def config_show(config: ConfigOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """What was pushed to this gateway and counts now beside its settings file, and what is on trial."""
    state = read_state(LocalFiles(), load(GatewaySettings, config, {"data_dir": data_dir}).data_dir)
    if as_json:
        trial = None if state.trial is None else msgspec.to_builtins(state.trial)
        print(json.dumps({"serial": state.active_serial, "toml": state.active, "trial": trial}))
        return
    if state.active:
        print(f"# pushed configuration {state.active_serial}\n{state.active}", end="")
    else:
        print("# nothing was pushed: the settings file counts alone")
    if state.trial is not None:
        print(f"# on trial: {state.trial.serial}\n{state.trial.toml}", end="")


@config_app.command("history")
@command
def config_history(config: ConfigOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """The last configurations that were pushed to this gateway, and what became of them."""
    state = read_state(LocalFiles(), load(GatewaySettings, config, {"data_dir": data_dir}).data_dir)
    if as_json:
        print(json.dumps([msgspec.to_builtins(item) for item in state.history]))
        return
    for item in state.history:
        at = datetime.fromtimestamp(item.at_us / 1_000_000, UTC)
        print(f"{item.serial:4}  {at:%Y-%m-%d %H:%M:%S}  {item.verdict:11}  {item.command}  {item.reason}".rstrip())
    print(f"{len(state.history)} pushed configurations")
