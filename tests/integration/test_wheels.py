"""A gateway installs on a 64-bit Raspberry Pi OS without a compiler. Needs the package index, so it runs at night only."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.nightly
@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_everything_a_gateway_needs_has_a_wheel_for_64_bit_arm(tmp_path: Path, python: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["gateway"]]
    # Debian 12 has glibc 2.36.
    platforms = ["--platform=manylinux2014_aarch64", "--platform=manylinux_2_28_aarch64"]
    words = [
        "download",
        "--quiet",
        "--only-binary=:all:",
        *platforms,
        f"--python-version={python}",
        "--dest",
        str(tmp_path),
    ]
    done = subprocess.run([sys.executable, "-m", "pip", *words, *wanted], capture_output=True, check=False, text=True)
    if "connection" in done.stderr.lower() or "No module named pip" in done.stderr:
        pytest.skip("no package index, or no pip")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.whl"))) >= len(wanted)
