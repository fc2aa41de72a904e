"""A gateway installs on a 64-bit Raspberry Pi OS without a compiler. Asks the package index; skipped where none is reached."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("gateway", "modbus", "gpio")
UNREACHED = ("connection", "temporary failure in name resolution", "timed out", "proxy")
# An index that is there and does not answer; to pip that is a package without any wheel, and only its log tells them apart.
UNANSWERED = re.compile(r"(Could not fetch URL|HTTP error) .*\b(40[137]|429|5\d\d)\b")


@pytest.fixture(scope="module")
def pip(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A pip: ours, or that of a fresh virtual environment, which needs no network."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    folder = tmp_path_factory.mktemp("pip")
    done = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True, check=False, text=True)
    if done.returncode != 0:
        pytest.skip("no pip, and this Python brings none (package python3-venv)")
    return [str(folder / "bin/python"), "-m", "pip"]


@pytest.mark.parametrize("python", ["3.11", pytest.param("3.13", marks=pytest.mark.nightly)])
def test_everything_a_gateway_needs_has_a_wheel_for_64_bit_arm(tmp_path: Path, pip: list[str], python: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(item for name in EXTRAS for item in project["optional-dependencies"][name])]
    report, log = tmp_path / "report.json", tmp_path / "pip.log"
    words = [
        "install", "--dry-run", "--quiet", "--log", str(log), "--retries", "1", "--timeout", "20", "--only-binary=:all:",
        # Debian 12 has glibc 2.36.
        "--platform=manylinux2014_aarch64", "--platform=manylinux_2_28_aarch64", f"--python-version={python}",
        "--target", str(tmp_path / "target"), "--report", str(report),
    ]  # fmt: skip
    done = subprocess.run([*pip, *words, *wanted], capture_output=True, check=False, text=True)
    if done.returncode != 0 and any(word in done.stderr.lower() for word in UNREACHED):
        pytest.skip(f"no package index: {done.stderr[-200:]}")
    if done.returncode != 0 and (found := UNANSWERED.search(log.read_text(errors="replace"))):
        pytest.skip(f"the package index does not answer: {found[0]}")
    assert done.returncode == 0, done.stderr
    files = [item["download_info"]["url"].rpartition("/")[2] for item in json.loads(report.read_text())["install"]]
    assert len(files) >= len(wanted)
    assert all(name.endswith(("-any.whl", "_aarch64.whl")) for name in files), files
    assert sum(name.endswith("_aarch64.whl") for name in files) >= 4, "pydantic-core, msgspec, cbor2, google-crc32c"
