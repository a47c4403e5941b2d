"""The house keeps its shape: who may import whom, and where engine, broker, network, clock and chance may stand.

Every rule is a function from a tree of sources to the places that break it, and each is shown to find a planted one.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("schemas", "detectors", "sinks", "dataflows", "bench")

MAY_IMPORT = {
    "schemas": {"schemas"},
    "detectors": {"detectors", "schemas"},
    "sinks": {"sinks", "schemas"},
    "dataflows": {"dataflows", "detectors", "sinks", "schemas"},
    "bench": set(OURS),
}
"""Arrows run one way. (The one arrow of `dataflows` into `bench` has a rule of its own.)"""

ENGINE, BROKER = {"bytewax"}, {"confluent_kafka"}
HTTP = {"starlette", "uvicorn", "httpx2", "httpx", "http", "urllib", "requests", "aiohttp"}
SOCKETS = {"socket", "ssl", "socketserver", "asyncio", "selectors"}
FILES = {"os", "pathlib", "shutil", "tempfile", "sqlite3", "apsw", "mmap", "io", "glob", "fileinput"}
CLOCKS = {"time", "sched", "timeit"}
CHANCE = {"random", "secrets", "uuid"}
THREADS = {"threading", "multiprocessing", "concurrent", "subprocess"}

HELD_BY = {
    "engine": (ENGINE, {"dataflows", "bench"}),
    "broker": (BROKER, {"dataflows", "sinks", "bench"}),
    "http": (HTTP, {"dataflows", "sinks", "bench"}),
}
"""Which libraries may stand where."""

PURE = ("schemas", "detectors")
NOT_IN_PURE = SOCKETS | FILES | CLOCKS | CHANCE | THREADS | HTTP | ENGINE | BROKER

EXCUSED = {"schemas/kernels.py": {"os", "pathlib", "shutil"}}
"""Compiled code is kept between runs: a matter of the machine, without influence on any result."""

CALLS_OF_A_CLOCK = {"now", "utcnow", "today", "time", "time_ns", "monotonic", "perf_counter", "sleep"}
CALLS_OF_CHANCE = {"seed", "rand", "randn", "random_sample", "RandomState"}


class Import(NamedTuple):
    """One imported module: where, and its dotted name."""

    place: str
    package: str
    module: str


def sources(root: Path) -> Iterator[tuple[str, str, ast.Module]]:
    """Give each of our modules: its place, its top package, its syntax tree."""
    for package in OURS:
        for path in sorted((root / package).rglob("*.py")):
            place = str(path.relative_to(root))
            yield place, package, ast.parse(path.read_text(encoding="utf-8"), filename=place)


def imports(root: Path) -> Iterator[Import]:
    """Give every import of every module, those inside functions included; a relative one by what it stands for."""
    for place, package, tree in sources(root):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (Import(f"{place}:{node.lineno}", package, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                name = node.module if node.level == 0 and node.module else package
                yield Import(f"{place}:{node.lineno}", package, name)


def top(module: str) -> str:
    # What reads addresses as text reaches nobody.
    return module if module == "urllib.parse" else module.partition(".")[0]


def dotted(node: ast.expr) -> str:
    """Write `a.b.c` of an expression; what is no such chain is left out of its front."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def called(root: Path, packages: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Give each call in some packages: its place, and what is called."""
    for place, package, tree in sources(root):
        if package in packages:
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    yield f"{place}:{node.lineno}", dotted(node.func)


# The rules: each lists the places that break it


def arrows_that_run_back(root: Path) -> list[str]:
    return [
        f"{one.place} imports {one.module}"
        for one in imports(root)
        if top(one.module) in OURS
        and top(one.module) not in MAY_IMPORT[one.package]
        # The demonstration needs a telco, the benchmark command its harness: command lines alone reach for them.
        and not (one.package == "dataflows" and top(one.module) == "bench")
    ]


def imports_of_test_tools(root: Path) -> list[str]:
    return [f"{one.place} imports {one.module}" for one in imports(root) if top(one.module) in {"tests", "pytest"}]


def libraries_out_of_place(root: Path) -> list[str]:
    return [
        f"{one.place} imports {one.module}"
        for one in imports(root)
        for libraries, homes in HELD_BY.values()
        if top(one.module) in libraries and one.package not in homes
    ]


def impure_imports(root: Path) -> list[str]:
    return [
        f"{one.place} imports {one.module}"
        for one in imports(root)
        if one.package in PURE and top(one.module) in NOT_IN_PURE - EXCUSED.get(one.place.partition(":")[0], set())
    ]


def clocks_read(root: Path) -> list[str]:
    return [
        f"{place} calls {name}" for place, name in called(root, PURE) if name.rpartition(".")[2] in CALLS_OF_A_CLOCK
    ]


def files_opened(root: Path) -> list[str]:
    # What is packaged with the sources is read through importlib.resources alone, which needs neither of these.
    return [
        f"{place} calls {name}"
        for place, name in called(root, PURE)
        if name in {"open", "print", "input"}
        or name.rpartition(".")[2] in {"write_text", "write_bytes", "tofile", "memmap"}
    ]


def chance_of_its_own(root: Path) -> list[str]:
    """Randomness is an argument: a Generator comes from outside, or is made of a seed."""
    found = []
    for place, package, tree in sources(root):
        for node in ast.walk(tree):
            if package not in PURE or not isinstance(node, ast.Call):
                continue
            module, _, name = dotted(node.func).rpartition(".")
            unseeded = name == "default_rng" and not node.args and not node.keywords
            if unseeded or (module.endswith("random") and name != "default_rng") or name in CALLS_OF_CHANCE:
                found.append(f"{place}:{node.lineno} calls {dotted(node.func)}")
    return found


RULES: dict[Callable[[Path], list[str]], tuple[str, str]] = {
    arrows_that_run_back: ("sinks/crm.py", "from detectors.engine import RiskEngine"),
    imports_of_test_tools: ("bench/cases.py", "def run():\n    import pytest"),
    libraries_out_of_place: ("detectors/live.py", "import bytewax.operators as op"),
    impure_imports: ("schemas/disk.py", "from pathlib import Path"),
    clocks_read: ("detectors/late.py", "import datetime as dt\nNOW = dt.datetime.now(dt.UTC)"),
    files_opened: ("schemas/log.py", "def log(line):\n    with open('log', 'a') as file:\n        file.write(line)"),
    chance_of_its_own: ("detectors/luck.py", "import numpy as np\nRNG = np.random.default_rng()"),
}
"""Each rule, and a source that breaks it."""

MORE_VIOLATIONS = [
    (arrows_that_run_back, "schemas/up.py", "from detectors import roster"),
    (arrows_that_run_back, "detectors/out.py", "import sinks.outbox"),
    (arrows_that_run_back, "detectors/patterns/up.py", "from dataflows.flow import build"),
    (arrows_that_run_back, "sinks/desk/up.py", "def late():\n    from bench.score import score"),
    (libraries_out_of_place, "sinks/flow.py", "from bytewax.dataflow import Dataflow"),
    (libraries_out_of_place, "schemas/topic.py", "from confluent_kafka import Consumer"),
    (libraries_out_of_place, "detectors/web.py", "import httpx2"),
    (impure_imports, "detectors/wait.py", "import time"),
    (impure_imports, "detectors/net.py", "import socket"),
    (impure_imports, "detectors/dice.py", "import random"),
    (clocks_read, "schemas/stamp.py", "from datetime import date\nDAY = date.today()"),
    (files_opened, "detectors/dump.py", "def dump(rows):\n    rows.tofile('rows')"),
    (chance_of_its_own, "detectors/draw.py", "import numpy as np\nnp.random.seed(1)"),
    (chance_of_its_own, "schemas/draw.py", "import numpy as np\nX = np.random.normal(0, 1)"),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule):
    assert rule(ROOT) == []


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [(rule, *planted) for rule, planted in RULES.items()] + MORE_VIOLATIONS,
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_the_rule_finds_what_breaks_it(tmp_path, rule, path, source):
    planted = tmp_path / path
    planted.parent.mkdir(parents=True)
    planted.write_text(source)
    (found,) = rule(tmp_path)
    assert found.startswith(path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("detectors/fine.py", "import numpy as np\ndef draw(seed):\n    return np.random.default_rng(seed)"),
        ("detectors/told.py", "def late(now_ms, rng):\n    return rng.random() < now_ms"),
        (
            "detectors/data.py",
            "from importlib import resources\nT = resources.files('detectors').joinpath('a.toml').read_text()",
        ),
        ("schemas/written.py", "import datetime as dt\ndef at(s):\n    return dt.datetime.fromtimestamp(s, tz=dt.UTC)"),
        ("dataflows/all.py", "import time, bytewax, confluent_kafka, starlette\nimport detectors, sinks, schemas"),
        ("bench/peers.py", "from bytewax.dataflow import Dataflow\nimport random"),
    ],
)
def test_no_rule_forbids_what_is_right(tmp_path, path, source):
    planted = tmp_path / path
    planted.parent.mkdir(parents=True)
    planted.write_text(source)
    assert [place for rule in RULES for place in rule(tmp_path)] == []


def test_every_excuse_is_needed():
    needed = {(one.place.partition(":")[0], top(one.module)) for one in imports(ROOT)}
    assert {(place, module) for place, modules in EXCUSED.items() for module in modules} <= needed


def test_every_package_of_ours_is_looked_at():
    found = {package for _, package, _ in sources(ROOT)}
    assert found == set(OURS)
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders == set(OURS)
