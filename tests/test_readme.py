"""Every command of the README prints what the README says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(sys.executable).parent


def sessions():
    """Blocks of the README that show commands with their output, as lists of (command, output)."""
    blocks = re.findall(r"^```\n(\$ .*?)^```", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    for block in blocks:
        parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
        yield [(part.partition("\n")[0], part.partition("\n")[2].strip("\n")) for part in parts]


def shown(session, folder):
    environ = {**os.environ, "STAYLINE_TOKEN_KEY": "0" * 64, "COLUMNS": "100"}
    for command, output in session:
        if command.startswith("export "):
            continue
        words = command.replace(".venv/bin/", f"{SCRIPTS}/").split()
        ran = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, check=True)
        assert "\n".join(line.rstrip() for line in ran.stdout.splitlines()) == output, command


def test_the_recorded_events_session_prints_what_the_readme_shows(tmp_path):
    recorded, _ = sessions()
    shown(recorded, tmp_path)


def test_the_billing_records_session_prints_what_the_readme_shows(tmp_path):
    source = os.environ.get("STAYLINE_BILLING_CDR", "")
    if not Path(source).is_file():
        pytest.skip("set STAYLINE_BILLING_CDR to the cdr.csv of github.com/pablomdata/np-dl-telco")
    _, billing = sessions()
    shutil.copy(source, tmp_path / "cdr.csv")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    shown(billing, tmp_path)
