"""The page of numbers, `docs/numbers.md`, made of the raw lines in `bench/results/` and of nothing else.

    python -m bench.numbers

Each section stands for one run of `stayline bench`; it names the command, the day, the conditions and the files.
"""
