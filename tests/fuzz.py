"""Coverage-guided fuzzing of one decoder (`make fuzz`): python tests/fuzz.py TARGET SECONDS.

Instrumented is what is Python; compiled kernels are held against the authority on every input (`events`). An input
that breaks a promise is written to `fuzz-TARGET-...` in the working directory: it becomes a case of
`tests/test_fuzz.py`.
"""

import sys
import tempfile
from pathlib import Path

import atheris

import schemas.arrow
import schemas.decode  # compiled code cannot be instrumented: it is there before  # noqa: F401

with atheris.instrument_imports(include=["schemas.formats", "schemas.arrow.stream", "schemas.arrow.batch"]):
    import fuzz_kit


def main() -> None:
    """Fuzz the target named by the first argument for as many seconds as the second says."""
    name, seconds = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        for at, seed in enumerate(fuzz_kit.SEEDS[name]):
            (Path(folder) / f"seed-{at}").write_bytes(seed)
        arguments = [
            f"-max_total_time={seconds}",
            "-max_len=16384",
            f"-artifact_prefix=fuzz-{name}-",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *arguments, "-verbosity=0", folder], fuzz_kit.target(name))
        atheris.Fuzz()


main()
