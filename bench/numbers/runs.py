"""A run of the harness as its raw lines have it, and the tables of figures read from it."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from bench.peers.race import PEERS

Line = Mapping[str, Any]


class Run(NamedTuple):
    """One run of the harness, as its raw lines have it.

    Attributes:
        stem: of its files.
        lines: without the one of the conditions.
        told: the one of the conditions.
    """

    stem: str
    lines: Sequence[Line]
    told: Line

    @classmethod
    def read(cls, folder: Path, stem: str) -> "Run | None":
        """Read a run; None if there is none."""
        path = folder / f"{stem}.jsonl"
        if not path.exists():
            return None
        told, *lines = (orjson.loads(line) for line in path.read_bytes().splitlines())
        return cls(stem, lines, told)

    def of(self, kind: str) -> list[Line]:
        """Return the lines of a kind."""
        return [line for line in self.lines if line["kind"] == kind]

    def one(self, kind: str) -> Line:
        """Return the only line of a kind, or the last of it."""
        return self.of(kind)[-1]

    def ratio(self, name: str, by: str = "per_second") -> float:
        """Return how many times as fast as the first of its race a work was: the median over the rounds."""
        base: Line = {}
        for line in self.of("rate"):
            rate = line["rate"]
            if rate["name"] == name:
                return _median(one / other for one, other in zip(rate[by], base[by], strict=True))
            if not rate["digest"]:
                base = rate
        raise KeyError(name)

    def rate(self, name: str) -> float:
        """Return the median rate of a work, events a second."""
        return _median(next(r["rate"] for r in self.of("rate") if r["rate"]["name"] == name)["per_second"])

    def head(self) -> list[str]:
        """Return what stands above its figures."""
        files = ", ".join(f"[{word}](../bench/results/{self.stem}.{end})" for word, end in _FILES)
        conditions = "; ".join(self.told["conditions"])
        return [f"`stayline bench {self.told['command']}`, {self.told['date']}: {files}. {conditions}.", ""]


_FILES = (("as printed", "txt"), ("raw lines", "jsonl"))


def table(*rows: Sequence[str]) -> list[str]:
    """Return rows as a table, the first of them its head."""
    head, *others = rows
    return [_row(head), _row(["---", *("--:" for _ in head[1:])]), *map(_row, others)]


def _median(values: Iterable[float]) -> float:
    return float(statistics.median(values))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def picture(name: str, words: str) -> list[str]:
    """Return a picture of the results, said in words for who cannot see it."""
    return ["", f"![{words}](../bench/results/{name}.svg)"]


def raced(run: Run) -> list[Line]:
    """Return the lines of the peers that took part."""
    return [line for line in run.one("peers")["lines"] if "not_here" not in line]


def times(run: Run, time: str = "seconds") -> dict[str, float]:
    """Return of each peer how many times as fast as our row of its job it was."""
    lines = raced(run)
    found = {}
    for name in dict.fromkeys(line["name"] for line in lines):
        bases = {line["round"]: line for line in lines if line["name"] == PEERS[name].against}
        found[name] = _against([line for line in lines if line["name"] == name], bases, time)
    return found


def _against(mine: Sequence[Line], bases: Mapping[int, Line], time: str) -> float:
    return _median(bases[line["round"]][time] / line[time] for line in mine)
