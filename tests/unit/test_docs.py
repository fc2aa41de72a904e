"""The documentation is held to the code: links, commands, options, rule examples, named tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from citynet.cli import LazyGroup
from citynet.runtime.cli_config import check_all
from citynet_rules.spec import load_rules
from citynet_sim import scenario

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")])
IDS = [str(path.relative_to(ROOT)) for path in PAGES]
COMMAND = re.compile(r"(?:^|/)citynet ((?:[a-z][a-z-]*|--[a-z-]+)(?:[ \t]+[^\s`#|>&;]+)*)")


def _commands(text: str) -> list[list[str]]:
    """Words behind ``./citynet`` in shell blocks and in inline code."""
    shell = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    inline = re.findall(r"`((?:\./)?citynet [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    lines = [re.sub(r"\s#.*", "", line) for line in [*shell, *inline]]
    return [found.split() for line in lines for found in COMMAND.findall(line.strip())]


def _problem(words: list[str]) -> str | None:
    """What is wrong with a command line, None if it names a command and options that exist."""
    group: Any = LazyGroup()
    context = typer.Context(group)
    rest = list(words)
    while rest and hasattr(group, "get_command") and not rest[0].startswith("-"):
        names = rest.pop(0)
        if "|" in names:  # `check|show|sample` stands for each of them
            missing = [name for name in names.split("|") if group.get_command(context, name) is None]
            return f"no command {missing}" if missing else None
        group = group.get_command(context, names)
        if group is None:
            return f"no command {names!r}"
    options = {name for parameter in group.params for name in [*parameter.opts, *parameter.secondary_opts]}
    unknown = [
        word
        for word in rest
        if word.startswith("-") and word.partition("=")[0] not in {*options, "--help", "--version"}
    ]
    passed_on = (
        group.context_settings.get("ignore_unknown_options", False) if not hasattr(group, "get_command") else False
    )
    return f"no option {unknown}" if unknown and not passed_on else None


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "#")):
            assert (path.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_commands_and_options_exist(path: Path) -> None:
    for words in _commands(path.read_text(encoding="utf-8")):
        assert _problem(words) is None, f"citynet {' '.join(words)}: {_problem(words)}"


def test_the_check_of_commands_finds_what_is_wrong() -> None:
    assert _problem(["audit", "--json"]) is None
    assert _problem(["config", "check", "--config", "x"]) is None
    assert _problem(["bake"]) is not None
    assert _problem(["config", "guess"]) is not None
    assert _problem(["audit", "--loud"]) is not None
    assert len(_commands((ROOT / "README.md").read_text(encoding="utf-8"))) > 10


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_examples_of_settings_and_rules_load(path: Path, tmp_path: Path) -> None:
    for number, block in enumerate(re.findall(r"```toml\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)):
        example = tmp_path / f"{number}.toml"
        example.write_text(block, encoding="utf-8")
        if "[[override]]" in block:
            assert len(load_rules([example])) == block.count("[[override]]")
        elif "[[rule]]" in block:
            assert len(load_rules([example])) == block.count("[[rule]]")
        elif block.startswith("[neighbours."):
            assert load_rules([example]).neighbours
        elif block.startswith("about ="):
            assert scenario.parse("example", str(example), block).file.about
        else:
            assert check_all(example)[1] == []


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_tests_and_files_that_are_named_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for place, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        assert re.search(rf"^(async )?def {name}\(", (ROOT / place).read_text(encoding="utf-8"), re.MULTILINE), name
    for place in re.findall(r"`((?:tests|deploy|docs|core|rules|ingest|gateway|api|firmware-sim)/[\w/.@-]+)`", text):
        assert (ROOT / place).exists(), place


def test_tests_that_are_named_without_their_file_exist() -> None:
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    for page in PAGES:
        named = re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8"))
        assert not set(named) - defined, page.name


def test_every_promise_of_the_gateway_has_a_proof() -> None:
    """A test, whose existence is checked above, or a line of its bench; and the counters are there."""
    text = (ROOT / "docs/gateway-promises.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in text.splitlines() if row.startswith("| ")]
    rows = [row for row in rows if row[0] not in ("promise", "what")]
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "gateway/citynet_gateway").rglob("*.py")]
    assert len(rows) > 60
    for promise, proof, *counters in rows:
        lines = re.search(r"bench: ([^`]+?)(?:; `|$)", proof)
        assert lines or re.search(r"`tests/[\w/]+\.py::test_\w+`", proof), promise
        for line in lines[1].split("; ") if lines else []:
            assert any(f'"{line}"' in source for source in sources), f"{promise}: no bench line {line!r}"
        for name in re.findall(r"`(\w+_\w+)[`{]", " ".join(counters)):
            if not name.startswith("citynet_ingest"):
                assert any(f'"citynet_gateway_{name}"' in source for source in sources), f"{promise}: no metric {name}"


def test_every_page_is_reachable_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in text, page.name


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(int(page.name[:4]) for page in (ROOT / "docs" / "adr").glob("*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
