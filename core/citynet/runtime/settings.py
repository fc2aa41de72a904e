"""Settings: one `citynet.toml` with a table per role; environment over file, flags over environment.

Every model is frozen and refuses unknown keys. `load` reports all mistakes at once, each naming the file (or environment
variable) and the field.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from citynet.errors import ConfigError
from citynet.runtime import environment

DEFAULT_FILE = Path("citynet.toml")


class TableConfig(ConfigDict, total=False):
    """pydantic's configuration, and where the environment speaks of the table."""

    env_prefix: str


class Table(BaseModel):
    """Base of every settings table. Subclasses set `model_config = table_config("NAME")`."""

    model_config: ClassVar[TableConfig] = TableConfig(extra="forbid", frozen=True, validate_default=True)


def table_config(name: str) -> TableConfig:
    """Configuration of the table `[name]`: environment variables ``CITYNET_NAME_FIELD``, nested by ``__``."""
    return TableConfig(extra="forbid", frozen=True, validate_default=True, env_prefix=f"CITYNET_{name.upper()}_")


class TlsSettings(BaseModel, extra="forbid", frozen=True):
    """TLS towards a broker. Without a `ca_file` the system's certificates are used."""

    ca_file: Path | None = Field(None, description="certificates of the authorities we trust; unset: the system's")
    cert_file: Path | None = Field(None, description="our own certificate, where the broker asks for one")
    key_file: Path | None = Field(None, description="private key of `cert_file`")


class BrokerEndpoint(BaseModel, extra="forbid", frozen=True):
    """Where a broker listens and how to log in; the password is read from a file, never from the settings."""

    host: str = Field("127.0.0.1", description="name or address of the broker")
    port: int = Field(1883, ge=1, le=65535, description="TCP port of the broker; 8883 is usual with TLS")
    username: str | None = Field(None, description="name to log in with; unset: anonymous")
    password_file: Path | None = Field(None, description="file that holds the password")
    tls: TlsSettings | None = Field(None, description="TLS towards the broker; unset: none")

    def password(self) -> str | None:
        """The password, without the file's trailing newline. ConfigError if the file cannot be read."""
        if self.password_file is None:
            return None
        try:
            return self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise ConfigError([f"broker password_file {self.password_file}: {error.strerror}"]) from None


class BrokerSettings(Table):
    """The server's broker."""

    model_config = table_config("broker")

    host: str = Field("127.0.0.1", description="name or address of the broker")
    port: int = Field(1883, ge=1, le=65535, description="TCP port of the broker; 8883 is usual with TLS")
    username: str | None = Field(None, description="name to log in with; unset: anonymous")
    password_file: Path | None = Field(None, description="file that holds the password")
    tls: TlsSettings | None = Field(None, description="TLS towards the broker; unset: none")

    def endpoint(self) -> BrokerEndpoint:
        """The same as a value of its own."""
        return BrokerEndpoint(
            host=self.host, port=self.port, username=self.username, password_file=self.password_file, tls=self.tls
        )


class DatabaseSettings(Table):
    """The database that ingest writes and the api reads."""

    model_config = table_config("database")

    dsn: str = Field("postgresql://citynet@127.0.0.1:5432/citynet", description="libpq connection string")
    password_file: Path | None = Field(None, description="file that holds the password, if the DSN has none")

    def conninfo(self) -> dict[str, Any]:
        """Keyword arguments for `psycopg.connect`."""
        if self.password_file is None:
            return {"conninfo": self.dsn}
        try:
            return {"conninfo": self.dsn, "password": self.password_file.read_text(encoding="utf-8").strip()}
        except OSError as error:
            raise ConfigError([f"database password_file {self.password_file}: {error.strerror}"]) from None


class LogSettings(Table):
    """Logging of every process."""

    model_config = table_config("log")

    level: str = Field("info", pattern="^(debug|info|warning|error)$", description="lowest level that is written")
    format: str = Field(
        "auto", pattern="^(auto|console|json)$", description="auto: console on a terminal, JSON elsewhere"
    )


T = TypeVar("T", bound=Table)


def known_tables() -> dict[str, str]:
    """Every settings table of the installed roles: name to ``module:Model``."""
    return {point.name: point.value for point in entry_points(group="citynet.settings")}


def read_file(path: Path | None) -> dict[str, Any]:
    """The settings file as a dict. Without `path`, ``citynet.toml`` here or an empty dict.

    Raises:
        ConfigError: a named file that is absent, or one that is not TOML, or one with a table nobody knows.
    """
    data = parse_file(path)
    if problems := misplaced(data, path):
        raise ConfigError(problems)
    return data


def parse_file(path: Path | None) -> dict[str, Any]:
    """Like `read_file`, whatever the tables are called. ConfigError if a named file is absent, or it is not TOML."""
    chosen = path or DEFAULT_FILE
    try:
        return tomllib.loads(chosen.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if path is None:
            return {}
        raise ConfigError([f"{chosen}: no such file"]) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError([f"{chosen}: {error}"]) from None


def misplaced(data: Mapping[str, Any], path: Path | None) -> list[str]:
    """What stands at the top of a settings file and is no table that an installed role knows, one line each."""
    known = known_tables()
    names = ", ".join(sorted(known))
    return [
        f"{path or DEFAULT_FILE}: [{name}]: unknown table (known: {names})"
        if isinstance(value, dict)
        else f"{path or DEFAULT_FILE}: {name}: must be a table or stand in one (known: {names})"
        for name, value in data.items()
        if name not in known or not isinstance(value, dict)
    ]


def load(model: type[T], path: Path | None = None, flags: Mapping[str, Any] | None = None) -> T:
    """Load one table.

    Args:
        model: the table's model.
        path: the settings file; None means ``citynet.toml`` if it is there.
        flags: values from the command line; None values count as not given.

    Raises:
        ConfigError: every mistake, one line each.
    """
    return validate(model, read_file(path).get(table_name(model), {}), path, flags)


def table_name(model: type[Table]) -> str:
    """Name of a model's table, such as ``gateway``."""
    return str(model.model_config.get("env_prefix")).removeprefix("CITYNET_").removesuffix("_").lower()


def validate(model: type[T], table: dict[str, Any], path: Path | None, flags: Mapping[str, Any] | None = None) -> T:
    """Merge a table that was read from `path` with environment and flags, and check it. Raises what `load` raises."""
    prefix = str(model.model_config.get("env_prefix"))
    name = table_name(model)
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    problems = _unknown_environment(model, prefix)
    spoken, unreadable = environment.read(model, prefix)
    if unreadable:
        raise ConfigError(problems + unreadable)
    try:
        settings = model.model_validate(_over_defaults(model, environment.merge(table, spoken, given)))
    except ValidationError as error:
        problems += [_explain(item, name, path, given, prefix) for item in error.errors()]
        raise ConfigError(problems) from None
    if problems:
        raise ConfigError(problems)
    return settings


def _over_defaults(model: type[Table], values: dict[str, Any]) -> dict[str, Any]:
    """Who sets one key of an inner table that is there by default keeps the defaults of its others."""
    below = {
        name: field.default.model_dump()
        for name, field in model.model_fields.items()
        if isinstance(field.default, BaseModel) and isinstance(values.get(name), dict)
    }
    return environment.merge(below, values)


def _unknown_environment(model: type[Table], prefix: str) -> list[str]:
    fields = {field.upper() for field in model.model_fields}
    return [
        f"environment {key}: unknown setting"
        for key in os.environ
        if key.startswith(prefix) and key.removeprefix(prefix).partition("__")[0].upper() not in fields
    ]


def _explain(item: Any, name: str, path: Path | None, given: Mapping[str, Any], prefix: str) -> str:
    where = ".".join(str(part) for part in item["loc"])
    field = str(item["loc"][0]) if item["loc"] else ""
    if field in given:
        origin = f"--{field.replace('_', '-')}"
    elif any(key.startswith(prefix + field.upper()) for key in os.environ):
        origin = f"environment {prefix}{where.upper().replace('.', '__')}"
    else:
        origin = f"{path or DEFAULT_FILE}: {name}.{where}"
    value = f" (got {str(item.get('input'))[:60]!r})" if item["type"] not in ("missing", "extra_forbidden") else ""
    return f"{origin}: {item['msg']}{value}"
