"""``citynet config``: check the settings, show what holds and why, print a sample file."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from citynet.errors import ConfigError
from citynet.runtime import reference
from citynet.runtime.command import EXIT_FAILURE, ConfigOption, JsonOption, command
from citynet.runtime.settings import DEFAULT_FILE, Table, known_tables, misplaced, parse_file, validate

app = typer.Typer(no_args_is_help=True, help="Check, show or sample the settings.")

TablesArgument = Annotated[
    list[str] | None, typer.Argument(help="Only these tables (default: all).", show_default=False)
]


@app.command()
@command
def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Load every table; print every problem with its file or variable. Exit 1 if there is one."""
    tables, problems = check_all(config)
    if as_json:
        print(json.dumps({"ok": not problems, "tables": sorted(tables), "problems": problems}, ensure_ascii=False))
    elif problems:
        print("\n".join(problems), file=sys.stderr)
    else:
        print(f"{_source(config)}: {len(tables)} tables, no problems")
    if problems:
        raise typer.Exit(EXIT_FAILURE)


@app.command()
@command
def show(tables: TablesArgument = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the value of every setting and where it comes from: default, file or environment."""
    chosen = set(_chosen(tables))
    loaded, problems = check_all(config)
    if problems:
        raise ConfigError(problems)
    data = parse_file(config)
    rows = [
        (setting, reference.origin(setting, data, config))
        for name, values in loaded.items()
        if name in chosen
        for setting in reference.effective(name, values)
    ]
    if as_json:
        print(json.dumps([_row(*row) for row in rows], ensure_ascii=False))
        return
    width = max((len(setting.name) for setting, _ in rows), default=0)
    for setting, origin in rows:
        value = "(unset)" if setting.value is None else json.dumps(setting.value, ensure_ascii=False)
        print(f"{setting.name:{width}}  {value}  [{' '.join(filter(None, (origin.kind, origin.where)))}]")


@app.command()
@command
def sample(tables: TablesArgument = None) -> None:
    """Print a complete, commented settings file; every line of it is a default."""
    chosen = _chosen(tables)
    print(reference.sample({name: chosen[name] for name in tables or chosen}), end="")


def check_all(config: Path | None) -> tuple[dict[str, Table], list[str]]:
    """Load every known table; the tables that are well, and every problem of the others, one line each."""
    models, missing = reference.models()
    try:
        data = parse_file(config)
    except ConfigError as error:
        return {}, error.problems
    problems = [*misplaced(data, config), *reference.unknown_variables(known_tables())]
    problems += [f"{_source(config)}: [{name}]: this role needs {missing[name]}" for name in data if name in missing]
    loaded: dict[str, Table] = {}
    for name, model in models.items():
        table = data.get(name, {})
        if not isinstance(table, dict):
            continue  # told already
        try:
            loaded[name] = validate(model, table, config)
        except ConfigError as error:
            problems += error.problems
    return loaded, problems


def _chosen(tables: Sequence[str] | None) -> Mapping[str, type[Table]]:
    models, missing = reference.models()
    wrong = [
        f"table {name}: {f'needs {missing[name]}' if name in missing else 'unknown'} (known: {', '.join(models)})"
        for name in tables or ()
        if name not in models
    ]
    if wrong:
        raise ConfigError(wrong)
    return {name: models[name] for name in tables} if tables else models


def _row(setting: reference.Setting, origin: reference.Origin) -> dict[str, Any]:
    return {
        "setting": setting.name,
        "value": setting.value,
        "origin": origin.kind,
        "where": origin.where,
        "variable": setting.variable,
    }


def _source(config: Path | None) -> str:
    if config is not None:
        return str(config)
    return str(DEFAULT_FILE) if DEFAULT_FILE.exists() else "defaults and environment"
