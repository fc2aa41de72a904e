"""The configuration that came over the link, kept beside the settings file: read at the start, tried, confirmed or rolled back.

A pushed text is TOML with one table, ``[gateway]``. Its keys replace those of the settings file, each as a whole. What
identifies the gateway, where its data are and how large its spool may be cannot be changed from afar.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from citynet.errors import CitynetError, ConfigError
from citynet.runtime import log
from citynet.runtime.settings import read_file, validate
from citynet_gateway import durable, pushed_state, toml_text
from citynet_gateway.pushed_state import Pushed
from citynet_gateway.settings import GatewaySettings
from citynet_gateway.spool.files import Files

TOML_BYTES_MAX = 16 * 1024
CONFIRM_S_MIN, CONFIRM_S_DEFAULT, CONFIRM_S_MAX = 5.0, 120.0, 3_600.0
FIXED = frozenset({"id", "data_dir", "segment_bytes", "spool_bytes_max", "spool_kind", "metrics_port"})
STATE = "pushed-config"

logger = log.get(__name__)


class PushedConfig:
    """The settings of this gateway, with what was pushed to it.

    Args:
        config, flags: the settings file and the command line, as `citynet.runtime.settings.load` takes them.
        utc_us: for the history.
    """

    def __init__(self, files: Files, config: Path | None, flags: Mapping[str, Any], utc_us: Callable[[], int]) -> None:
        self._files = files
        self._config = config
        self._flags = flags
        self._utc_us = utc_us
        self._table: dict[str, Any] = read_file(config).get("gateway", {})
        self._base = self._merged("")
        self._path = self._base.data_dir / STATE
        self.problem = ""
        self.state = durable.load(files, self._path, Pushed) or Pushed()

    def begin(self) -> GatewaySettings:
        """The settings of the run that begins now. A pushed text that does not fit (any more) is never a reason not to start.

        Raises:
            ConfigError: the settings file itself is wrong.
        """
        if self.state.trial is not None:
            self._begin_trial()
        text = pushed_state.in_force(self.state)
        try:
            return self._merged(text)
        except ConfigError as error:
            self.problem = f"the pushed configuration does not fit the settings file: {error}"
            logger.warning("pushed-config-ignored", error=str(error))
        if self.on_trial:
            self.roll_back(self.problem)
            return self.begin()
        return self._base

    def _begin_trial(self) -> None:
        started = pushed_state.start(self.state, self._utc_us())
        try:
            self._files.prepare(self._path.parent)
            self._save(started)
        except OSError as error:
            # Without a durable mark a trial could run again and again.
            logger.warning("trial-not-started", error=str(error))
            self.state = pushed_state.roll_back(self.state, f"storage failed: {error}", self._utc_us())

    @property
    def on_trial(self) -> bool:
        return self.state.trial is not None and self.state.trial.is_running

    def check(self, text: str) -> GatewaySettings:
        """The settings as they would be with `text`. ConfigError tells everything that is wrong."""
        if len(text.encode()) > TOML_BYTES_MAX:
            raise ConfigError([f"pushed configuration: more than {TOML_BYTES_MAX} bytes"])
        return self._merged(text)

    def merged_text(self, text: str) -> str:
        """The text in force with the keys of `text` in place of its own, as TOML. ConfigError if it has others than it may."""
        merged = {**_parsed(pushed_state.in_force(self.state)), **_parsed(text)}
        return toml_text.dump({"gateway": merged})

    def push(self, text: str, command: str, confirm_s: float) -> None:
        """Put a checked text on trial with the next start. ValueError while another is; OSError as the storage says."""
        self._save(pushed_state.push(self.state, text, command, confirm_s))

    def confirm(self) -> None:
        """The link is back. OSError: not remembered, to be tried again."""
        self._save(pushed_state.confirm(self.state, self._utc_us()))
        logger.info("config-applied", serial=self.state.active_serial)

    def roll_back(self, reason: str) -> None:
        """Give the trial up; takes effect with the next start. What cannot be saved is rolled back by that start itself."""
        self.state = pushed_state.roll_back(self.state, reason, self._utc_us())
        logger.warning("config-rolled-back", reason=reason)
        try:
            durable.save(self._files, self._path, self.state)
        except OSError as error:
            logger.warning("config-state-not-saved", error=str(error))

    def told(self, serial: int) -> None:
        """Whoever pushed it knows. OSError as the storage says; then it is told again after a restart."""
        self._save(pushed_state.told(self.state, serial))

    def _save(self, state: Pushed) -> None:
        durable.save(self._files, self._path, state)
        self.state = state

    def _merged(self, text: str) -> GatewaySettings:
        return validate(GatewaySettings, {**self._table, **_parsed(text)}, self._config, self._flags)


def _parsed(text: str) -> dict[str, Any]:
    """The keys of the text's one table. ConfigError if there is anything else, or what may not be changed."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"pushed configuration: {error}"]) from None
    table = data.pop("gateway", {})
    problems = [f"pushed configuration: {name}: only the table [gateway] can be pushed" for name in data]
    if not isinstance(table, dict):
        raise ConfigError([*problems, "pushed configuration: gateway: must be a table"])
    problems += [
        f"pushed configuration: gateway.{name}: cannot be changed from afar" for name in sorted(FIXED & table.keys())
    ]
    if problems:
        raise ConfigError(problems)
    return table


def read_state(files: Files, data_dir: Path) -> Pushed:
    """What was pushed to the gateway of this data folder; reads only.

    Raises:
        CitynetError: the state is there and not whole.
    """
    path = data_dir / STATE
    found = durable.load(files, path, Pushed)
    if found is None and path.exists():
        raise CitynetError(f"{path}: cannot be read")
    return found or Pushed()
