"""Which commands were carried out, pure: each id at most once, across restarts, for as long as it may come again.

A command is remembered before it is begun. So after a crash in between nobody knows whether it was done: it is answered
``interrupted`` and not done again. Bound: `COMMANDS_MAX`; one is forgotten only after its deadline, from when on it would be
refused anyway.
"""

from __future__ import annotations

import msgspec

from citynet.control import Command, CommandResult

COMMANDS_MAX = 256
DEADLINE_S_MAX = 86_400
FORGET_AFTER_US = 3_600_000_000
RESULT_BYTES_MAX = 3_072


class Entry(msgspec.Struct):
    """A command that was begun; `result` is None until it came to an end."""

    id: str
    kind: str
    deadline_us: int
    result: CommandResult | None = None


class Entries(msgspec.Struct):
    entries: list[Entry] = []


class CommandMemory:
    """`entries` are those of the last run."""

    def __init__(self, entries: Entries | None = None) -> None:
        self._entries = {entry.id: entry for entry in (entries.entries if entries is not None else [])}
        self._running: set[str] = set()

    def judge(self, command: Command, now_us: int | None) -> CommandResult | None:
        """The answer of a command that must not be begun (it came before, is too late, ...); None: begin it.

        Args:
            now_us: UTC, None while the gateway does not know it; then no deadline can be judged.
        """
        entry = self._entries.get(command.id)
        if entry is not None and entry.kind != command.kind:
            return _refused(command, f"this id was used before, for {entry.kind}")
        if entry is not None and entry.result is not None:
            return entry.result
        if entry is not None and command.id not in self._running:
            return CommandResult(command.id, command.kind, "interrupted", "the gateway was restarted while it did this")
        if entry is not None:
            return CommandResult(command.id, command.kind, "trial", "it is being done")
        if now_us is not None and command.deadline_us < now_us:
            return _refused(command, f"expired {(now_us - command.deadline_us) / 1_000_000:.1f} s ago")
        if now_us is not None and command.deadline_us > now_us + DEADLINE_S_MAX * 1_000_000:
            return _refused(command, f"the deadline is more than {DEADLINE_S_MAX} s away")
        return None

    def begin(self, command: Command, now_us: int | None) -> str:
        """Remember it; save before it is carried out. Empty text, or why it cannot be remembered."""
        if now_us is not None:
            self._entries = {
                key: entry for key, entry in self._entries.items() if entry.deadline_us + FORGET_AFTER_US >= now_us
            }
        if len(self._entries) >= COMMANDS_MAX:
            return f"{COMMANDS_MAX} commands are remembered and none of them has expired"
        self._entries[command.id] = Entry(command.id, command.kind, command.deadline_us)
        self._running.add(command.id)
        return ""

    def finish(self, result: CommandResult) -> None:
        """Its result; what is too large to remember is cut to state and reason."""
        self._running.discard(result.id)
        entry = self._entries.get(result.id)
        if entry is None:
            return
        if len(msgspec.json.encode(result)) > RESULT_BYTES_MAX:
            result = msgspec.structs.replace(result, data={}, reason=result.reason[:1_000])
        entry.result = result

    def kind_of(self, ident: str) -> str | None:
        """Of a remembered command."""
        entry = self._entries.get(ident)
        return entry.kind if entry is not None else None

    def running_on(self, ident: str) -> None:
        """A command of an earlier run is being brought to its end by this one."""
        self._running.add(ident)

    def entries(self) -> Entries:
        return Entries(list(self._entries.values()))


def _refused(command: Command, reason: str) -> CommandResult:
    return CommandResult(command.id, command.kind, "refused", reason)
