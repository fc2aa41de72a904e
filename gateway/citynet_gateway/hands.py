"""Remote hands: commands that come over the link, one after the other in a thread of their own.

Every command that changes something is remembered durably before it is begun, and with its result (`command_memory`): it is
done at most once. A result is published and put into the journal. A pushed configuration is tried by a restart of the
process; this thread watches over the trial.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from citynet.control import Command, CommandResult, CommandState, decode
from citynet.errors import CitynetError, ConfigError, DecodeError
from citynet.runtime import failpoint, log
from citynet_gateway import durable, metrics, pushed_state
from citynet_gateway.command_memory import CommandMemory, Entries
from citynet_gateway.drivers.port import Driver
from citynet_gateway.interlocks import Interlocks
from citynet_gateway.journal import Journal
from citynet_gateway.outputs.port import OutputError
from citynet_gateway.outputs.worker import OutputWorker
from citynet_gateway.pushed_config import CONFIRM_S_DEFAULT, CONFIRM_S_MAX, CONFIRM_S_MIN, PushedConfig
from citynet_gateway.spool.files import Files

WAITING_MAX = 16
PAYLOAD_BYTES_MAX = 32 * 1024
OUTPUT_S_MAX = 5.0
CONFIRM_HOLD_S = 2.0  # the link must stay so long to count as back
_TICK_S = 0.25
_READS = frozenset({"read-now", "config-get"})  # change nothing: carried out as often as they are asked for

logger = log.get(__name__)


class Pollable(Protocol):
    """A driver that can be told to ask its devices now."""

    def poll_now(self, device: str) -> bool:
        """Poll the device (all of them if empty) as soon as possible; False if it is none of this driver's."""
        ...


@dataclass(frozen=True, slots=True)
class Reach:
    """What commands may touch.

    Attributes:
        restart: end this run of the gateway and begin the next one.
        publish: send a result; False if it was not taken.
        utc_us: UTC in µs, None while it is not known.
    """

    outputs: Mapping[str, OutputWorker]
    interlocks: Interlocks
    drivers: Sequence[Driver]
    config: PushedConfig
    journal: Journal
    restart: Callable[[], None]
    publish: Callable[[CommandResult], bool]
    utc_us: Callable[[], int | None]


class RefusedError(CitynetError):
    """Nothing was done, and why."""


class Hands:
    """The thread that carries commands out. `take`, `link` and `stop` from any thread."""

    def __init__(self, files: Files, path: Path, reach: Reach) -> None:
        self._files = files
        self._path = path
        self._reach = reach
        self._memory = CommandMemory(durable.load(files, path, Entries))
        self._waiting: queue.Queue[tuple[bytes, bool] | None] = queue.Queue(WAITING_MAX)
        self._up_since_s: float | None = None
        self._started_s = time.monotonic()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="hands", daemon=True)
        trial = reach.config.state.trial
        for ident in (
            [trial.command] if trial is not None else [item.command for item in pushed_state.untold(reach.config.state)]
        ):
            self._memory.running_on(ident)
        self._kinds: dict[str, Callable[[Command], tuple[CommandState, dict[str, Any]]]] = {
            "read-now": self._read_now,
            "write-output": self._write_output,
            "change-sampling": self._change_sampling,
            "interlock-reset": self._interlock_reset,
            "config-get": self._config_get,
            "config-push": self._config_push,
        }

    def start(self) -> None:
        self._thread.start()

    def take(self, payload: bytes, is_retained: bool) -> None:
        """A message on our command topic. Never blocks: beyond `WAITING_MAX` it is dropped; the operator repeats it."""
        try:
            self._waiting.put_nowait((payload, is_retained))
        except queue.Full:
            metrics.COMMANDS.labels("any", "dropped").inc()

    def link(self, *, is_up: bool) -> None:
        self._up_since_s = time.monotonic() if is_up else None

    def stop(self) -> None:
        """Finish the command that is being carried out, within a bound."""
        self._stopping = True
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(1.0)

    def _run(self) -> None:
        while not self._stopping:
            try:
                item = self._waiting.get(timeout=_TICK_S)
            except queue.Empty:
                self._watch_trial()
                continue
            if item is not None:
                self._one(*item)

    # --- one command

    def _one(self, payload: bytes, is_retained: bool) -> None:
        try:
            if len(payload) > PAYLOAD_BYTES_MAX:
                raise DecodeError("too-large", "command", f"{len(payload)} bytes, at most {PAYLOAD_BYTES_MAX}")
            command = decode(payload, Command)
        except DecodeError as error:
            metrics.COMMANDS.labels("any", "undecodable").inc()
            logger.warning("command-undecodable", error=str(error))
            return
        if is_retained:
            # It would be carried out again after every connect of a gateway that has forgotten it.
            self._tell(_result(command, "refused", "commands must not be retained"))
            return
        if command.kind not in self._kinds:
            self._tell(_result(command, "refused", f"no command of this kind (known: {', '.join(self._kinds)})"))
            return
        answer = self._memory.judge(command, self._reach.utc_us())
        if answer is not None:
            self._publish(answer)
            metrics.COMMANDS.labels(command.kind, "repeated").inc()
            return
        self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        if command.kind not in _READS:
            refusal = self._memory.begin(command, self._reach.utc_us()) or self._save()
            if refusal:
                self._memory.finish(_result(command, "refused", refusal))
                self._tell(_result(command, "refused", refusal))
                return
            failpoint.hit("gateway.command-begun")
        try:
            state, data = self._kinds[command.kind](command)
            result = _result(command, state, data=data)
        except RefusedError as error:
            result = _result(command, "refused", str(error))
        except (CitynetError, OSError) as error:
            result = _result(command, "failed", str(error))
        failpoint.hit("gateway.command-done")
        if result.state != "trial":
            self._memory.finish(result)
            if command.kind not in _READS:
                self._save()
        self._tell(result)
        if result.state == "trial":
            self._reach.restart()

    def _save(self) -> str:
        """Empty text, or why the memory cannot be saved."""
        try:
            durable.save(self._files, self._path, self._memory.entries())
        except OSError as error:
            return f"the gateway's storage fails: {error.strerror or error}"
        return ""

    def _tell(self, result: CommandResult) -> None:
        metrics.COMMANDS.labels(result.kind if result.kind in self._kinds else "any", result.state).inc()
        logger.info("command", id=result.id, kind=result.kind, state=result.state, reason=result.reason)
        if result.kind not in _READS:
            self._reach.journal.event(
                f"command-{result.state}",
                f"{result.kind} {result.id}" + (f": {result.reason}" if result.reason else ""),
            )
        self._publish(result)

    def _publish(self, result: CommandResult) -> bool:
        return self._reach.publish(result)

    # --- the kinds

    def _read_now(self, command: Command) -> tuple[CommandState, dict[str, Any]]:
        args = _args(command, {"output": str, "device": str})
        if "output" in args:
            return "done", {"output": args["output"], "on": self._wait(self._output(args["output"]).ask())}
        device = args.get("device", "")
        polled = [
            driver.name
            for driver in self._reach.drivers
            if (poll := getattr(driver, "poll_now", None)) is not None and poll(device)
        ]
        if not polled:
            raise RefusedError(f"no driver polls {device or 'anything'}")
        return "done", {"polled": polled}

    def _write_output(self, command: Command) -> tuple[CommandState, dict[str, Any]]:
        args = _args(command, {"output": str, "on": bool}, needed=("output", "on"))
        name, on = args["output"], args["on"]
        worker = self._output(name)
        if name in self._reach.interlocks.outputs_used():
            raise RefusedError(f"output {name} belongs to an interlock")
        self._wait(worker.write(on, f"command {command.id}"))
        return "done", {"output": name, "on": on}

    def _change_sampling(self, command: Command) -> tuple[CommandState, dict[str, Any]]:
        """A shorthand: the configuration in force, with other tables ``[[gateway.sense]]`` or of drivers."""
        args = _args(command, {"toml": str, "confirm_s": (int, float)}, needed=("toml",))
        return self._try(command, args["toml"], float(args.get("confirm_s", CONFIRM_S_DEFAULT)), merge=True)

    def _config_push(self, command: Command) -> tuple[CommandState, dict[str, Any]]:
        args = _args(command, {"toml": str, "confirm_s": (int, float)}, needed=("toml",))
        return self._try(command, args["toml"], float(args.get("confirm_s", CONFIRM_S_DEFAULT)), merge=False)

    def _try(
        self, command: Command, toml: str, confirm_s: float, *, merge: bool
    ) -> tuple[CommandState, dict[str, Any]]:
        if not CONFIRM_S_MIN <= confirm_s <= CONFIRM_S_MAX:
            raise RefusedError(f"confirm_s must be {CONFIRM_S_MIN:g} to {CONFIRM_S_MAX:g}")
        config = self._reach.config
        try:
            text = config.merged_text(toml) if merge else toml
            config.check(text)
            config.push(text, command.id, confirm_s)
        except (ConfigError, ValueError) as error:
            raise RefusedError(str(error)) from None
        return "trial", {"serial": config.state.serial, "confirm_s": confirm_s}

    def _interlock_reset(self, command: Command) -> tuple[CommandState, dict[str, Any]]:
        name = _args(command, {"name": str}, needed=("name",))["name"]
        if refusal := self._reach.interlocks.reset(name):
            raise RefusedError(refusal)
        return "done", {"interlocks": self._reach.interlocks.states()}

    def _config_get(self, command: Command) -> tuple[CommandState, dict[str, Any]]:
        _args(command, {})
        state = self._reach.config.state
        return "done", {
            "serial": state.active_serial,
            "toml": pushed_state.in_force(state),
            "trial": state.trial.serial if state.trial is not None else None,
            "problem": self._reach.config.problem,
            "interlocks": self._reach.interlocks.states(),
        }

    def _output(self, name: str) -> OutputWorker:
        if name not in self._reach.outputs:
            raise RefusedError(f"no output is called {name[:64]} (known: {', '.join(self._reach.outputs) or 'none'})")
        return self._reach.outputs[name]

    @staticmethod
    def _wait(future: Future[bool | None]) -> bool | None:
        try:
            return future.result(OUTPUT_S_MAX)
        except (FutureTimeoutError, TimeoutError):
            raise OutputError(f"the output has not answered within {OUTPUT_S_MAX:g} s") from None

    # --- the trial of a pushed configuration

    def _watch_trial(self) -> None:
        config, now_s = self._reach.config, time.monotonic()
        trial = config.state.trial
        up_since_s = self._up_since_s
        if config.on_trial and trial is not None:
            if up_since_s is not None and now_s - up_since_s >= CONFIRM_HOLD_S:
                try:
                    config.confirm()
                except OSError as error:
                    logger.warning("config-not-confirmed", error=str(error))
            elif now_s - self._started_s >= trial.confirm_s:
                config.roll_back(f"the link was not back within {trial.confirm_s:g} s")
                self._reach.restart()
            return
        if up_since_s is not None:
            self._tell_outcomes()

    def _tell_outcomes(self) -> None:
        """Whoever pushed hears the end of it, from the run that knows it, once there is a link."""
        config = self._reach.config
        for item in pushed_state.untold(config.state):
            state: CommandState = "done" if item.verdict == "applied" else "rolled-back"
            kind = self._memory.kind_of(item.command) or "config-push"
            result = CommandResult(item.command, kind, state, item.reason, {"serial": item.serial}, item.at_us)
            self._memory.finish(result)
            try:
                config.told(item.serial)
            except OSError:
                return
            self._save()
            self._tell(result)


def _result(
    command: Command, state: CommandState, reason: str = "", data: dict[str, Any] | None = None
) -> CommandResult:
    return CommandResult(command.id, command.kind, state, reason[:2_000], data or {})


def _args(command: Command, known: Mapping[str, Any], needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """The arguments, checked. RefusedError names what is wrong."""
    for name, value in command.args.items():
        kind = known.get(name)
        if kind is None:
            raise RefusedError(f"{command.kind} has no argument {name[:64]!r} (known: {', '.join(known) or 'none'})")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise RefusedError(f"argument {name}: {str(value)[:60]!r} is of the wrong type")
    if missing := [name for name in needed if name not in command.args]:
        raise RefusedError(f"{command.kind} needs the argument {missing[0]}")
    return dict(command.args)
