"""Everything on a small telco, live: one evening of trouble, sped up, on this machine alone."""

import contextlib
import itertools
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import orjson
import typer

from bench.simulator.live import EVENING, HEAD_MS, past, story
from dataflows.config.outputs import FileOutput
from dataflows.config.settings import Config
from dataflows.run import run

SPEED = 120.0
"""Two minutes of the telco's evening pass in a second."""

BATCH_S = 0.25
"""How often the telco sends what has happened."""

BATCH_LINES = 20_000
"""Lines of the past that are sent at once: a few megabytes."""

PLACES = {"events": "POST /v1/events", "desk": "/", "metrics": "/metrics"}


def demo() -> None:
    """Show it: simulator, detection, store, desk, metrics; ends with Ctrl-C."""
    typer.echo(f"A telco of {EVENING.customers:,} customers, one evening, {SPEED:.0f} times as fast. Ctrl-C ends it.")
    typer.echo("The months before it are read in first, then addresses follow; the first start compiles for a minute.")
    with tempfile.TemporaryDirectory(prefix="stayline-demo-") as folder:
        config = _config(Path(folder))
        telco = Telco(config)
        try:
            run(config, telco.announce)
        finally:
            telco.end()
    typer.echo("The demo has ended; its files are gone.")


class Telco:
    """The world around a deployment: it sends what happens, and tells on the terminal what comes of it.

    The months before and the beginning of the evening are sent at once; addresses are told when they have been taken
    in, so that the desk has a story to tell from the first look on.

    Args:
        config: of the deployment.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._addresses: dict[str, str] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name="telco", daemon=True)

    def announce(self, name: str, address: str) -> None:
        """Be told where the deployment answers; begin once all of it does."""
        self._addresses[name] = address
        if self._addresses.keys() == PLACES.keys():
            self._thread.start()

    def end(self) -> None:
        """Stop sending and telling."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def _live(self) -> None:
        lines = story(EVENING, SPEED)
        telling = threading.Thread(target=_tell, args=(self._config, self._ended), name="alerts", daemon=True)
        # Nobody answers any more: the deployment has ended, and so has the telco.
        with (
            contextlib.suppress(httpx2.TransportError),
            httpx2.Client(base_url=f"http://{self._addresses['events']}", trust_env=False, timeout=60.0) as client,
        ):
            begins_ms, last, sent = _begin(client, lines)
            self._wait_until_taken_in(sent)
            for name, address in self._addresses.items():
                typer.echo(f"  {name:<8} http://{address}{PLACES[name].removeprefix('POST ')}")
            telling.start()
            _send(client, itertools.chain([last], lines), begins_ms, self._ended)
        if telling.is_alive():
            telling.join(timeout=5.0)

    def _wait_until_taken_in(self, sent: int) -> None:
        """Wait until detection has read so many records, and the desk shows what came of them."""
        with httpx2.Client(base_url=f"http://{self._addresses['metrics']}", trust_env=False) as client:
            while not self._ended.wait(BATCH_S):
                page = client.get("/metrics").text
                read = sum(
                    float(count) for count in re.findall(r"^stayline_records_total{.*} (\S+)$", page, re.MULTILINE)
                )
                waiting = re.findall(r'^stayline_outbox_pending{output="desk"} (\S+)$', page, re.MULTILINE)
                if read >= sent and not any(float(count) for count in waiting):
                    return


def _config(folder: Path) -> Config:
    return Config.model_validate(
        {
            "deployment": {"name": "demo"},
            "input": {"kind": "http", "http": {"listen": _free(8090)}},
            "state": {"directory": str(folder / "state")},
            "output": (
                {"kind": "desk", "name": "desk"},
                {"kind": "file", "name": "file", "path": str(folder / "alerts.ndjson")},
            ),
            "desk": {"listen": _free(8080)},
            "metrics": {"listen": _free(9100)},
        }
    )


def _free(port: int) -> str:
    """Return loopback with this port, or with any free one where it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken = probe.connect_ex(("127.0.0.1", port)) == 0
    return f"127.0.0.1:{0 if taken else port}"


def _begin(client: httpx2.Client, lines: Iterator[tuple[int, bytes]]) -> tuple[int, tuple[int, bytes], int]:
    """Send what is over when watching begins.

    Returns:
        When watching begins, the first line that is still to come, and how many were sent.
    """
    held: list[bytes] = []
    sent = 0
    for line in past(EVENING):
        held.append(line)
        if len(held) == BATCH_LINES:
            sent += _post(client, held)
    first_ms, line = next(lines)
    held.append(line)
    for at_ms, line in lines:
        if at_ms >= first_ms + HEAD_MS:
            return at_ms, (at_ms, line), sent + _post(client, held)
        held.append(line)
    raise AssertionError("an evening is longer than its head")


def _send(client: httpx2.Client, lines: Iterable[tuple[int, bytes]], begins_ms: int, ended: threading.Event) -> None:
    """Be the telco: post what happens as it happens, sped up."""
    begun_s = time.monotonic()
    held: list[bytes] = []
    for at_ms, line in itertools.chain(lines, [(begins_ms, b"")]):
        wait_s = (at_ms - begins_ms) / 1000.0 / SPEED - (time.monotonic() - begun_s)
        if wait_s > BATCH_S or not line:
            _post(client, held)
            if ended.wait(max(wait_s, 0.0)):
                return
        held.append(line)


def _post(client: httpx2.Client, held: list[bytes]) -> int:
    """Send what is held; return how much it was."""
    count = len(held)
    if held:
        client.post("/v1/events", content=b"".join(held)).raise_for_status()
        held.clear()
    return count


def _tell(config: Config, ended: threading.Event) -> None:
    """Print each notification as it reaches the file output."""
    path = next(output.path for output in config.output if isinstance(output, FileOutput))
    read = 0
    while not ended.wait(BATCH_S):
        data = path.read_bytes()[read:] if path.exists() else b""
        cut = data.rfind(b"\n") + 1
        read += cut
        for line in data[:cut].splitlines():
            typer.echo(_line(orjson.loads(line)))


def _line(notification: dict[str, Any]) -> str:
    what = notification["type"].removeprefix("stayline.")
    data = notification["data"]
    text = data["text"] if what.startswith("incident") else f"{data['severity']}: {data['pattern']['text']}"
    return f"{notification['time'][11:19]}  {what:<17} {notification['subject']}  {text}"
