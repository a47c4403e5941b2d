"""Jars that Maven fetches, kept in the user's cache under a digest of what asked for them.

Standard library alone: peers of the race import it in other interpreters than the project's own.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


class NotHereError(Exception):
    """What is needed is not on this machine; the text is one sentence that says what."""


def built(project: Path) -> str:
    """Build a Maven project, once, and return the class path of its jar and all that it needs.

    Args:
        project: folder with `pom.xml`, whose `finalName` is `peers`.

    Raises:
        NotHereError: there is no JDK or no Maven, or Maven fails.
    """
    for tool in ("javac", "mvn"):
        if shutil.which(tool) is None:
            raise NotHereError(f"{project.name} needs {tool} on the PATH")
    folder = cache() / f"{project.name}-{_digest(project)}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            draft = Path(scratch) / "project"
            shutil.copytree(project, draft, ignore=shutil.ignore_patterns("target"))
            _package(draft)
            draft.replace(folder)
    return f"{folder / 'target' / 'peers.jar'}:{folder / 'target' / 'dependency'}/*"


def cache() -> Path:
    """Return the folder for what is fetched and built."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stayline"


def _digest(project: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in project.rglob("*") if path.suffix in {".java", ".xml"}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _package(project: Path) -> None:
    command = ["mvn", "--quiet", "--batch-mode", "package", "dependency:copy-dependencies", "-DincludeScope=runtime"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)  # noqa: S603  a constant
    if done.returncode != 0:
        raise NotHereError(f"Maven could not build {project.name}: {(done.stdout + done.stderr).strip()[-300:]}")
