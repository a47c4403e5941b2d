"""Every session of the documentation prints what it says."""

import os
import re
import shutil
from pathlib import Path

import pytest

from bench.readme import README, ROOT, printed, sessions

FORMATS = ROOT / "docs/formats.md"


def hold(session, folder):
    for command, shown in session:
        if not command.startswith("export "):
            assert printed(command, folder) == shown, command


def test_the_recorded_events_session_prints_what_the_readme_shows(tmp_path):
    (recorded,) = sessions(README.read_text())
    hold(recorded, tmp_path)
    said = (tmp_path / "A").read_text()
    quoted = re.findall(r"^> (.+)$", README.read_text(), flags=re.MULTILINE)
    assert quoted
    assert [text for text in quoted if f'"{text}"' not in said] == []


def test_the_billing_records_session_prints_what_its_page_shows(tmp_path):
    source = os.environ.get("STAYLINE_BILLING_CDR", "")
    if not Path(source).is_file():
        pytest.skip("set STAYLINE_BILLING_CDR to the cdr.csv of github.com/pablomdata/np-dl-telco")
    (billing,) = sessions(FORMATS.read_text())
    shutil.copy(source, tmp_path / "cdr.csv")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    hold(billing, tmp_path)
