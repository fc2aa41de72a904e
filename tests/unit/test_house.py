"""The house rules that no linter checks: sizes of functions and files, first lines of folders."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "gateway", "ingest", "rules", "api", "firmware-sim")
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def function_lengths(path: Path) -> list[tuple[int, str]]:
    tree = ast.parse(path.read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [((node.end_lineno or node.lineno) - node.lineno + 1, f"{path.name}:{node.name}") for node in nodes]


def test_functions_are_short() -> None:
    lengths = sorted(length for path in SOURCES for length, _ in function_lengths(path))
    too_long = [entry for path in SOURCES for entry in function_lengths(path) if entry[0] > 70]
    assert too_long == []
    assert lengths[int(len(lengths) * 0.9)] <= 35, "90 % of the functions have at most 35 lines"


def test_files_are_short() -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in [*SOURCES, *TESTS]}
    assert [f"{path.name} {size}" for path, size in sizes.items() if size > (800 if path in TESTS else 500)] == []


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_every_package_says_what_lives_in_it(room: str) -> None:
    packages = sorted((ROOT / room).rglob("__init__.py"))
    assert packages
    assert [str(path) for path in packages if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_every_module_says_what_it_is() -> None:
    assert [str(path) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_no_room_is_missing_from_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(package.split("/")[0] for package in packages) == sorted(ROOMS)
