"""A short seeded run of what `make fuzz` does for longer, and every input that it ever found something with."""

import random

import pytest
from fuzz_kit import SEEDS, target

ROUNDS = 120  # a hundred lines of columns are checked by other means: see tests/test_arrow.py

WORDS = [b"9" * 30, b"-1", b"1e400", b"\\ud800", b"NaN", b"%00%ff"]

FOUND: list[tuple[str, bytes]] = []
"""Target and input of what fuzzing found; each was mended."""


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Damage an input in one to three of the ways in which inputs are damaged."""
    for _ in range(chance.randrange(1, 4)):
        at, size = chance.randrange(len(data) + 1), chance.randrange(1, 40)
        data = chance.choice([
            lambda data=data, at=at: data[:at],
            lambda data=data, at=at, size=size: data[:at] + data[at + size :],
            lambda data=data, at=at, size=size: data[:at] + chance.randbytes(size) + data[at:],
            lambda data=data, at=at, size=size: data[:at] + data[at : at + size] * 3 + data[at + size :],
            lambda data=data, at=at: data[:at] + bytes([chance.choice(b'",;={}[]:\\%\n\r\0<>@-9')]) + data[at + 1 :],
            lambda data=data, at=at: data[:at] + chance.choice(WORDS) + data[at:],
        ])()  # fmt: skip
    return data


@pytest.mark.parametrize("name", SEEDS)
def test_mutated_inputs_break_no_promise(name):
    chance = random.Random(f"fuzz {name}")  # noqa: S311 - the seed makes the run the same every time
    check = target(name)
    for seed in SEEDS[name]:
        check(seed)
    for _ in range(ROUNDS):
        check(mutated(chance.choice(SEEDS[name]), chance))


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_fuzzing_found_stays_mended(name, data):
    target(name)(data)
