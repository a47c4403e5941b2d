"""Opens vendor formats on the golden files of `tests/formats/`."""

import itertools
from pathlib import Path

import orjson

from dataflows.config.customers import read_customers
from schemas.formats import Converted, Options, open_format
from schemas.formats.identity import NumberPlan, Tokens

FORMATS = Path(__file__).parent / "formats"
PLAN = NumberPlan("44", national_digits=10)
KEY = b"0123456789abcdef"
CASES = sorted(str(path.relative_to(FORMATS)).removesuffix(".in") for path in FORMATS.glob("*/*.in"))


def options(case=""):
    """Tokens with and, in a case that is called so, without knowing who is a customer; a switch in London."""
    customers = read_customers(FORMATS / "customers.csv", PLAN) if case.endswith("customers") else None
    return Options(tokens=Tokens(KEY, PLAN, customers), timezone="Europe/London")


def source(case):
    return (FORMATS / f"{case}.in").read_bytes()


def read(name, data, opts=None, cuts=()):
    reader = open_format(name, options() if opts is None else opts)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    items = [item for low, high in itertools.pairwise(edges) for item in reader.feed(data[low:high])]
    return items + reader.finish()


def read_case(case, cuts=()):
    return read(case.partition("/")[0], source(case), options(case), cuts)


def events(items):
    return b"".join(item.line + b"\n" for item in items if isinstance(item, Converted))


def letters(items):
    told = [
        {"position": item.position, "reason": item.reason.value, "detail": item.detail}
        for item in items
        if not isinstance(item, Converted)
    ]
    return b"".join(orjson.dumps(letter) + b"\n" for letter in told)
