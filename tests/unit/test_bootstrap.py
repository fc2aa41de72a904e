"""The bootstrap script ``citynet`` in a folder of its own, with a PATH of our making: no network, nothing is installed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = (
    "sh",
    "readlink",
    "dirname",
    "sha256sum",
    "id",
    "flock",
    "mktemp",
    "tail",
    "rm",
    "mv",
    "grep",
    "env",
    "tr",
    "sort",
)


class Checkout:
    """A copy of the script beside a project file, and the programs it may find."""

    def __init__(self, folder: Path) -> None:
        self.top = folder / "my city"
        self.programs = folder / "bin"
        for made in (self.top, self.programs):
            made.mkdir()
        shutil.copy(ROOT / "citynet", self.top)
        self.project = self.top / "pyproject.toml"
        self.project.write_text("[project]\n", encoding="utf-8")
        for name in TOOLS:
            found = shutil.which(name)
            assert found, name
            (self.programs / name).symlink_to(found)

    def program(self, path: Path, body: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        path.chmod(0o755)

    def install(self, extras: str) -> None:
        """As the script leaves it after an installation; the command says what it was called with, and from where."""
        venv = self.top / ".venv"
        self.program(venv / "bin" / "citynet", 'echo "$PWD: $*"')
        self.program(venv / "bin" / "python", "exit 0")
        digest = hashlib.sha256(self.project.read_bytes()).hexdigest()
        (venv / ".citynet-stamp").write_text(f"{digest}\n{self.top.resolve()}\n{extras}\n", encoding="utf-8")

    def start(
        self, *words: str, script: Path | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(script or self.top / "citynet"), *words],
            check=False,
            env={"PATH": str(self.programs), "HOME": str(self.top)},
            cwd=cwd or self.top,
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def _error(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that says what is wrong."""
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("citynet: error: ")]
    return line


def test_once_installed_it_goes_straight_on_and_leaves_the_folder_alone(checkout: Checkout, tmp_path: Path) -> None:
    checkout.install("gateway,server,sim")
    result = checkout.start("sim", "describe", "--seed", "a b", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{tmp_path}: sim describe --seed a b\n"


def test_it_finds_its_folder_through_a_link(checkout: Checkout, tmp_path: Path) -> None:
    checkout.install("sim")
    link = tmp_path / "link"
    link.symlink_to(checkout.top / "citynet")
    assert checkout.start("sim", script=link).returncode == 0


def test_no_python_is_one_clear_line(checkout: Checkout) -> None:
    assert "no Python 3.11 or newer" in _error(checkout.start("sim"))


def test_an_old_python_is_none(checkout: Checkout) -> None:
    checkout.program(checkout.programs / "python3", "exit 1")
    assert "no Python 3.11 or newer" in _error(checkout.start("sim"))


def test_a_python_without_ensurepip_and_no_apt_is_one_clear_line(checkout: Checkout) -> None:
    checkout.program(
        checkout.programs / "python3.11", "case $2 in *ensurepip*) exit 1;; *print*) echo python3.11-venv;; esac"
    )
    line = _error(checkout.start("sim"))
    assert "no apt-get" in line
    assert "python3.11-venv" in line


def test_an_apt_that_fails_is_shown_and_explained(checkout: Checkout) -> None:
    checkout.program(
        checkout.programs / "python3.11", "case $2 in *ensurepip*) exit 1;; *print*) echo python3.11-venv;; esac"
    )
    checkout.program(checkout.programs / "apt-get", 'echo "E: no such package"; exit 100')
    checkout.program(checkout.programs / "sudo", 'shift; exec "$@"')
    result = checkout.start("sim")
    assert "apt-get install -y python3.11-venv" in _error(result)
    assert "E: no such package" in result.stderr


def test_a_venv_that_cannot_be_made_is_shown_and_explained(checkout: Checkout) -> None:
    checkout.program(checkout.programs / "python3", 'case "$*" in *"-m venv"*) echo "no room"; exit 1;; esac')
    result = checkout.start("sim")
    assert "-m venv" in _error(result)
    assert "no room" in result.stderr


@pytest.mark.parametrize(
    ("installed", "role", "is_enough"),
    [
        ("gateway,modbus", "gateway", True),
        ("gateway", "gateway", False),
        ("gateway", "ingest", False),
        ("server", "api", True),
        ("server", "sim", False),
        ("gateway,server,sim", "config", True),
        ("gateway,sim", "config", False),
        ("test", "config", True),
        ("test", "gateway", True),
        ("simulation", "sim", False),
    ],
)
def test_what_the_command_needs_decides(checkout: Checkout, installed: str, role: str, is_enough: bool) -> None:
    checkout.install(installed)
    result = checkout.start("--version", role)
    if is_enough:
        assert (result.returncode, result.stderr) == (0, "")
    else:
        assert "no Python" in _error(result)  # it set out to install


def test_a_changed_project_or_a_moved_folder_is_noticed(checkout: Checkout, tmp_path: Path) -> None:
    checkout.install("sim")
    checkout.project.write_text("[project]\nversion = '2'\n", encoding="utf-8")
    assert "no Python" in _error(checkout.start("sim"))
    checkout.install("sim")
    assert checkout.start("sim").returncode == 0
    moved = tmp_path / "moved"
    checkout.top.rename(moved)
    assert "no Python" in _error(checkout.start("sim", script=moved / "citynet", cwd=moved))
