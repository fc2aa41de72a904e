"""A pushed configuration's life, pure: pushed, on trial, confirmed or rolled back.

    push --> trial (waiting) --start--> trial (running) --the link is back--> active
                                         |  no link in time, or any restart before
                                         +-----------------------------------------> rolled back: the active one as before

Every arrow is one durable replacement of the whole state, made before its effect. A trial is started once: whatever ends
that run without a confirmation (a crash, the power, the deadline) ends the trial.
"""

from __future__ import annotations

from typing import Literal

import msgspec

HISTORY_MAX = 20
REASON_CHARS_MAX = 500

Verdict = Literal["applied", "rolled-back"]


class Trial(msgspec.Struct, frozen=True):
    """A configuration that has to prove itself. `command` is the id of the command that brought it."""

    serial: int
    toml: str
    command: str
    confirm_s: float
    is_running: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """What became of a trial; kept in the history, and until it `is_told` to whoever asked."""

    serial: int
    command: str
    verdict: Verdict
    reason: str
    at_us: int
    toml: str = ""
    is_told: bool = False


class Pushed(msgspec.Struct, frozen=True):
    """All of it. `serial` numbers the pushes; `active` is empty when the settings file alone counts."""

    serial: int = 0
    active_serial: int = 0
    active: str = ""
    trial: Trial | None = None
    history: list[Outcome] = []


def push(state: Pushed, toml: str, command: str, confirm_s: float) -> Pushed:
    """Put a configuration on trial with the next start. ValueError while another one is."""
    if state.trial is not None:
        raise ValueError("another configuration is on trial")
    serial = state.serial + 1
    return msgspec.structs.replace(state, serial=serial, trial=Trial(serial, toml, command, confirm_s))


def start(state: Pushed, at_us: int) -> Pushed:
    """A run of the gateway begins: with the trial if it is its first, else without."""
    if state.trial is None:
        return state
    if state.trial.is_running:
        return roll_back(state, "the gateway was restarted before the link was back", at_us)
    return msgspec.structs.replace(state, trial=msgspec.structs.replace(state.trial, is_running=True))


def confirm(state: Pushed, at_us: int) -> Pushed:
    """The link is back under the trial."""
    trial = state.trial
    if trial is None or not trial.is_running:
        raise ValueError("nothing is on trial")
    kept = msgspec.structs.replace(state, active=trial.toml, active_serial=trial.serial, trial=None)
    return _ended(kept, trial, "applied", "", at_us)


def roll_back(state: Pushed, reason: str, at_us: int) -> Pushed:
    """Give the trial up."""
    trial = state.trial
    if trial is None:
        raise ValueError("nothing is on trial")
    return _ended(msgspec.structs.replace(state, trial=None), trial, "rolled-back", reason, at_us)


def in_force(state: Pushed) -> str:
    """The TOML that the running gateway uses beside its settings file."""
    return state.trial.toml if state.trial is not None and state.trial.is_running else state.active


def untold(state: Pushed) -> list[Outcome]:
    return [item for item in state.history if not item.is_told]


def told(state: Pushed, serial: int) -> Pushed:
    history = [msgspec.structs.replace(item, is_told=True) if item.serial == serial else item for item in state.history]
    return msgspec.structs.replace(state, history=history)


def _ended(state: Pushed, trial: Trial, verdict: Verdict, reason: str, at_us: int) -> Pushed:
    entry = Outcome(trial.serial, trial.command, verdict, reason[:REASON_CHARS_MAX], at_us, trial.toml)
    return msgspec.structs.replace(state, history=[*state.history, entry][-HISTORY_MAX:])
