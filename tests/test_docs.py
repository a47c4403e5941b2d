"""What the documentation says: links lead somewhere, commands and keys exist, examples run."""

import contextlib
import itertools
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer
from metrics_kit import families, scraped, scraped_of_inputs

from bench.cases import CASES, GROUPS
from dataflows.cli import app
from dataflows.config import load
from dataflows.published.meanings import MEANINGS
from dataflows.published.reference import tables
from detectors.patterns import STRUCTURES
from schemas.errors import ConfigError

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
EXTENDING = (ROOT / "docs" / "extending.md").read_text()


def anchors(page):
    """Return the places of a page that a link can lead to, as GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(text, language=""):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@PAGE
def test_every_link_leads_to_something_that_is_there(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, place = target.partition("#")
        led = (page.parent / path).resolve() if path else page
        assert led.exists(), target
        assert not place or place in anchors(led), target


@PAGE
def test_every_test_that_is_named_exists(page):
    named = re.findall(r"`(tests/[\w/.]+)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def commands(text):
    """Give the commands of a page's sessions, each as words: lines of blocks, prompts and comments taken off."""
    for block in blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True) if line.count("'") % 2 == 0 else []
            if words and words[0] in {"stayline", ".venv/bin/stayline", "make"}:
                yield words
    for line in re.findall(r"`((?:stayline|make) [^`]+)`", text):
        yield shlex.split(line)


def unknown(words):
    """Return what of a command there is not; None where all is known."""
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        return next((word for word in words[1:] if "=" not in word and word not in targets), None)
    command, rest = typer.main.get_command(app), words[1:]
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            return rest[0]
        command, rest = command.commands[rest[0]], rest[1:]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return next(
        (word for word in rest if word.startswith("-") and word.split("=")[0] not in options | {"--help"}), None
    )


@PAGE
def test_every_command_and_option_exists(page):
    for words in commands(page.read_text()):
        # Several words of the command-reference style (list|show) stand for as many commands.
        for one in itertools.product(*(word.split("|") if "|" in word else [word] for word in words)):
            assert unknown(list(one)) is None, words


def test_a_command_that_does_not_exist_is_found():
    assert unknown(["stayline", "dance"]) == "dance"
    assert unknown(["stayline", "run", "--fast"]) == "--fast"
    assert unknown(["make", "coffee"]) == "coffee"
    assert unknown(["stayline", "dead-letters", "list", "-c", "x"]) is None


def problems_of(path):
    """Return what is wrong with a configuration."""
    with contextlib.suppress(ConfigError):
        load(path, {})
        return []
    with pytest.raises(ConfigError) as found:
        load(path, {})
    return found.value.problems


@PAGE
def test_every_piece_of_configuration_is_toml_of_keys_that_there_are(page, tmp_path):
    for block in blocks(page.read_text(), "toml"):
        tomllib.loads(block)
        # What goes on with the table of an output begins in the middle of one.
        inside = "[output." in block and "[[output]]" not in block
        (tmp_path / "c.toml").write_text('[[output]]\nkind = "webhook"\n' * inside + block)
        assert [problem for problem in problems_of(tmp_path / "c.toml") if "and is none" in problem] == []


@PAGE
def test_every_metric_that_is_named_exists(page):
    shown = {*families(scraped()), *families(scraped_of_inputs())}
    histograms = {name.removesuffix("_bucket") for name in shown}
    named = set(re.findall(r"`(stayline_[a-z0-9_]+)`", page.read_text()))
    assert named <= shown | histograms


def test_every_event_of_the_log_is_listed_and_no_other():
    sources = "".join(path.read_text() for path in (ROOT / "dataflows").rglob("*.py"))
    written = set(re.findall(r'\blog\(\s*"([a-z_.]+)"|_log\("([a-z_.]+)"', sources))
    told = re.findall(r'"((?:output|delivery)\.[a-z_]+)"', (ROOT / "sinks" / "queues.py").read_text())
    (log,) = re.findall(r"(?ms)^## The log$.*?^## ", (ROOT / "docs" / "operations.md").read_text())
    listed = {name for cell in re.findall(r"(?m)^\| (`.*?) \| ", log) for name in re.findall(r"`([a-z_.]+)`", cell)}
    assert listed == {name for found in written for name in found if name} | {*told, "output.misconfigured"}


def test_every_benchmark_that_is_named_exists():
    named = {name for page in PAGES for words in commands(page.read_text()) if words[1:2] == ["bench"]
             for name in words[2:] if re.fullmatch(r"[a-z]+", name)}  # fmt: skip
    assert named <= {*CASES, *GROUPS}


class TestReference:
    def test_every_key_has_a_meaning_and_every_meaning_a_key(self):
        places = {
            re.sub(r"\[*([a-z_.]*)\]*.*", r"\1", key.table) + f".{key.name}"
            for keys in tables().values()
            for key in keys
        }
        assert places == set(MEANINGS)
        assert [key for keys in tables().values() for key in keys if not key.meaning] == []

    def test_a_default_is_what_an_empty_configuration_has(self):
        config = load(None, {})
        keys = {(key.table, key.name): key.default for keys in tables().values() for key in keys}
        assert keys["[state]", "customers_max"] == f"{config.state.customers_max:,}"
        assert keys["[input.file]", "follow"] == "`false`"
        assert keys["[input.kafka]", "topics"] == "required"

    def test_bounds_are_told(self):
        kinds = {(key.table, key.name): key.kind for keys in tables().values() for key in keys}
        assert kinds["[detection]", "lateness_s"] == "0 to 604,800"
        assert kinds['[[output]] of kind = "webhook"', "timeout_s"] == "1 to 120"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    names = {"__name__": "extending"}
    for number, block in enumerate(blocks(EXTENDING, "python")):
        # What is compiled is kept under the file it is from: there must be one.
        path = tmp_path_factory.getbasetemp() / f"extending_{number}.py"
        path.write_text(block, "utf-8")
        exec(compile(block, path, "exec"), names)  # noqa: S102 - our own page
    return names


class TestExtending:
    """The example of the page, taken from the page."""

    def test_its_pattern_is_honest_where_nothing_is_wrong(self, made):
        rng = np.random.default_rng(3)
        assert made["mean_ratio_without_trouble"](made["night"], 3_000, rng) < 1.1

    def test_its_pattern_is_found_where_it_is(self, made):
        bad, good = np.zeros(8, made["CALL"]), np.zeros(8, made["CALL"])
        bad["end_ms"] = np.arange(8) * 86_400_000 + 23 * 3_600_000
        good["end_ms"] = np.arange(8) * 86_400_000 + 12 * 3_600_000
        found = made["night"](made["view_of"](bad, good))
        assert found.lift_log10 > 3.0

    def test_where_it_says_to_register_it_is_where_patterns_are(self):
        listed = re.search(r"STRUCTURES = \((.*)\)", EXTENDING)[1].split(", ")
        assert listed == [*(pattern.__name__ for pattern in STRUCTURES), "night"]
