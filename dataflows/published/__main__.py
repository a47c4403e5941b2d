"""`python -m dataflows.published`: write what is made by code into `docs/`."""

from pathlib import Path

from dataflows.published import publish

for name in publish(Path(__file__).parents[2] / "docs"):
    print(f"docs/{name}")  # noqa: T201 - a command tells what it did
