"""The customers file: which telephone numbers, SIP users and accounts belong to whom.

    identity,customer
    +44 1650 333333,1650333333
    1650333334,1650333333
    alice@pbx.example,1650333333

One row an identity; the customer is an identity too, the one under which all of a customer's calls are counted. Both
are written as the source writes them or otherwise: they are normalised. Who is in the file, on either side, is a
customer; who is not, is a far end. The file stays where it is: only tokens leave ingest.

Columns that are swapped are told by their header, and without one by an identity that has several customers; where
everybody has one identity alone, the same people are customers either way, and only their tokens differ.
"""

import csv
from pathlib import Path

from schemas.errors import ConfigError
from schemas.formats.identity import NumberPlan

_HEADER = ["identity", "customer"]
_PROBLEMS_MAX = 10


def read_customers(path: Path, plan: NumberPlan) -> dict[str, str]:
    """Read the file.

    Returns:
        Identity -> customer, as they are written.

    Raises:
        ConfigError: it cannot be read, or a row does not hold; no row is quoted.
    """
    rows, problems = _rows(path)
    found: dict[str, str] = {}
    owners: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, cells in rows:
        if len(cells) != 2 or not all(cells):
            problems.append(f"line {line} must be identity,customer, had {len(cells)} columns or an empty one")
            continue
        identity, customer = map(plan.normalised, cells)
        if owners.setdefault(identity, customer) != customer:
            problems.append(f"line {line} must not give an identity to a second customer, did")
        lines.setdefault(identity, line)
        found[cells[0]] = cells[1]
    if not rows and not problems:
        problems.append("must name a customer, named none")
    # A customer who is another's identity would be counted under two tokens.
    problems += [
        f"line {lines[customer]} must not give away who is a customer of another line, did"
        for customer in sorted(set(owners.values()))
        if owners.get(customer, customer) != customer
    ]
    if problems:
        raise ConfigError([f"input.tokens.customers_file: {path}: {text}" for text in problems[:_PROBLEMS_MAX]])
    return found


def _rows(path: Path) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """Return the rows that say something, with their lines, and what is wrong with the file."""
    rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line, row in enumerate(csv.reader(file), 1):
                cells = [cell.strip() for cell in row]
                named = [cell.lower() for cell in cells]
                if line == 1 and named == _HEADER[::-1]:
                    return [], ["line 1 must be identity,customer, was the other way round"]
                if any(cells) and (line > 1 or named != _HEADER):
                    rows.append((line, cells))
    except OSError as error:
        return [], [f"must be a file that can be read, was not: {error.strerror}"]
    except UnicodeDecodeError as error:
        return [], [f"must be UTF-8, was not at byte {error.start}"]
    except csv.Error as error:
        return [], [f"must be CSV, was not: {error}"]
    return rows, []
