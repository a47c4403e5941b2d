"""What tests need of the machine that runs them.

Where it is missing a test skips; but it fails where the part is named in STAYLINE_CI_REQUIRE, as in the continuous
integration: what did not run there would not be missed.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

REQUIRED = frozenset(os.environ.get("STAYLINE_CI_REQUIRE", "").split(","))


def absent(part: str, found: str) -> NoReturn:
    """End a test that needs a part of the machine; `found` says what was there in its place."""
    text = f"{part} must be there for this test: {found}"
    pytest.fail(text) if part in REQUIRED else pytest.skip(text)


def needs(program: str) -> str:
    """Return the path of a program that only some machines have."""
    return shutil.which(program) or absent(program, "no such program was found")


def make_certificates(folder: Path, host: str) -> None:
    """Make an authority (`ca.pem`), a server's certificate for a host and a client's, with their keys (`*.pem`)."""
    program = needs("openssl")

    def openssl(*arguments: str) -> None:
        subprocess.run([program, *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    openssl(*new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test CA")
    for name, alternative in (("server", host), ("client", "client")):
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", f"subjectAltName=DNS:{alternative}")
        more = ("-addext", "basicConstraints=critical,CA:FALSE")
        openssl(*new, "-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN={name}", *signed, *more)
        (folder / f"{name}.pem").write_text((folder / f"{name}.key").read_text() + (folder / f"{name}.crt").read_text())
