"""The page, made of its head, its sections and its sums."""

from functools import partial
from pathlib import Path

from bench.numbers.runs import Run
from bench.numbers.sections import SECTIONS
from bench.numbers.sums import cost, short

RESULTS = Path(__file__).parents[1] / "results"
PAGE = RESULTS.parents[1] / "docs" / "numbers.md"

HEAD = """# The numbers

What Stayline does on one core of an ordinary machine, and what others do there with the same events. Every figure is
read from a file of raw lines by `python -m bench.numbers`; none is copied by hand. `make bench-all` runs all of it
anew, which takes about two hours, and writes files, pictures and this page. Rates vary from machine to machine and with
what else runs there; ratios within one run hardly do, so compare those.
"""


def page(folder: Path = RESULTS) -> tuple[str, dict[str, str]]:
    """Return the page, and the pictures that it needs and no run has drawn: name -> SVG."""
    parts, pictures = [HEAD, *short(partial(Run.read, folder))], dict[str, str]()
    for title, stem, section in SECTIONS:
        run = Run.read(folder, stem)
        parts += [f"## {title}", ""]
        if run is None:
            parts += [f"Not measured yet: `stayline bench {stem.replace('-', ' ')}`.", ""]
            continue
        parts += [*run.head(), *section(run, pictures), ""]
    parts += cost(Run.read(folder, "throughput-profile"), Run.read(folder, "stalls"))
    return "\n".join(parts).rstrip() + "\n", pictures


def main() -> None:
    """Write the page and its pictures."""
    text, pictures = page()
    PAGE.write_text(text, encoding="utf-8")
    for name, picture in pictures.items():
        (RESULTS / f"{name}.svg").write_text(picture, encoding="utf-8")
