"""What is published beside the program and made by code: dashboards, the configuration reference, pictures.

`python -m dataflows.published` writes all of it into `docs/`; a test holds the files there against what would be
written, so that none of them can grow old.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from dataflows.published import pictures
from dataflows.published.dashboards import DASHBOARDS
from dataflows.published.panels import written
from dataflows.published.reference import reference

FILES: dict[str, Callable[[], str]] = {
    "configuration.md": reference,
    "pictures/flow.svg": pictures.flow,
    "pictures/evidence.svg": pictures.evidence,
    "pictures/case.svg": pictures.case,
    **{f"deploy/grafana/dashboards/{one.uid}.json": partial(written, one) for one in DASHBOARDS},
}
"""Path below `docs/` -> what gives its text."""


def publish(folder: Path) -> list[str]:
    """Write every file below a folder; return the paths of those that changed."""
    changed = []
    for name, text in FILES.items():
        path = folder / name
        fresh = text()
        if not path.exists() or path.read_text(encoding="utf-8") != fresh:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(fresh, encoding="utf-8")
            changed.append(name)
    return changed
