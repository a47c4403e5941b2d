"""The page of guarantees names tests that exist, and the pages it leads to exist too."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs/guarantees.md", ROOT / "docs/scaling.md"]
NAMED = re.compile(r"`(test_\w+\.py)((?:::\w+)+)`")


def named_in(path):
    """Return the tests of a file as pytest names them, without parameters."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(f"::{node.name}")
        elif isinstance(node, ast.ClassDef):
            found |= {f"::{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page):
    text = page.read_text()
    named = NAMED.findall(text)
    missing = [file + name for file, name in named if name not in named_in(ROOT / "tests" / file)]
    assert missing == []
    # Whatever looks like the name of a test is one that was looked up.
    assert len(named) == len(re.findall(r"test_\w+\.py::", text))


def test_every_promise_names_a_test():
    rows = [line for line in PAGES[0].read_text().splitlines() if line.startswith("|")]
    tables = "\n".join(rows).split("| promise | test |\n|---|---|\n")[1:]
    promises = [row for table in tables for row in table.split("\n| case |")[0].splitlines()]
    assert len(promises) > 20
    assert [row for row in promises if not NAMED.search(row)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_that_is_linked_exists(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
