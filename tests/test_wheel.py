"""What is installed from a wheel is what stands in the checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("bench", "dataflows", "detectors", "schemas", "sinks")
NOT_SHIPPED = "bench/results/"
"""Figures are read in the checkout: they are of the machine that made them."""


def tracked(checkout: Path) -> set[str]:
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=checkout, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.splitlines() if not name.startswith(NOT_SHIPPED)}


def test_the_wheel_holds_every_file_of_the_packages(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, checkout], check=True)
    build = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", tmp_path, checkout], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith(PACKAGES)}
    assert held == tracked(checkout)
