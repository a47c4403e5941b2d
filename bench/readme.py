"""The sessions shown in the README: run them, hold them against what is shown, or write down what they print now.

python -m bench.readme          # rewrites README.md
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SCRIPTS = Path(sys.executable).parent

Step = tuple[str, str]
"""A command and what it prints."""


def sessions(text: str) -> Iterator[list[Step]]:
    """Give the blocks that show commands with their output."""
    for block in re.findall(r"^```\n(\$ .*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        steps = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
        yield [(step.partition("\n")[0], step.partition("\n")[2].strip("\n")) for step in steps]


def printed(command: str, folder: Path) -> str:
    """Run one command of a session in a folder; return what it prints, without trailing blanks.

    Raises:
        CalledProcessError: it fails.
    """
    environ = {**os.environ, "STAYLINE_TOKEN_KEY": "0" * 64, "COLUMNS": "100"}
    words = command.replace(".venv/bin/", f"{SCRIPTS}/").split()
    ran = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    return "\n".join(line.rstrip() for line in ran.stdout.splitlines())


def main() -> None:
    """Rewrite the first session of the README with what its commands print now."""
    text = README.read_text()
    session = next(sessions(text))
    with tempfile.TemporaryDirectory() as folder:
        for command, shown in session:
            text = text.replace(f"$ {command}\n{shown}", f"$ {command}\n{printed(command, Path(folder))}")
    README.write_text(text)


if __name__ == "__main__":
    main()
