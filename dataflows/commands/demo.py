"""Everything on a small telco, live: one evening of trouble, sped up, on this machine alone."""

import contextlib
import itertools
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import orjson
import typer

from bench.simulator.live import EVENING, story
from dataflows.config.outputs import FileOutput
from dataflows.config.settings import Config
from dataflows.run import run

SPEED = 120.0
"""Two minutes of the telco's evening pass in a second."""

BATCH_S = 0.25
"""How often the telco sends what has happened."""

PLACES = {"events": "POST /v1/events", "desk": "/", "metrics": "/metrics"}


def demo() -> None:
    """Show it: simulator, detection, store, desk, metrics; ends with Ctrl-C."""
    typer.echo(f"A telco of {EVENING.customers:,} customers, one evening, {SPEED:.0f} times as fast. Ctrl-C ends it.")
    with tempfile.TemporaryDirectory(prefix="stayline-demo-") as folder:
        config = _config(Path(folder))
        ended = threading.Event()
        threads = [threading.Thread(target=_tell, args=(config, ended), name="alerts", daemon=True)]

        def announce(name: str, address: str) -> None:
            typer.echo(f"  {name:<8} http://{address}{PLACES[name].removeprefix('POST ')}")
            if name == "events":
                threads.append(threading.Thread(target=_send, args=(address, ended), name="telco", daemon=True))
            if name == "metrics":
                for thread in threads:
                    thread.start()

        try:
            run(config, announce)
        finally:
            ended.set()
            for thread in threads:
                if thread.is_alive():
                    thread.join(timeout=5.0)
    typer.echo("The demo has ended; its files are gone.")


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


def _send(address: str, ended: threading.Event) -> None:
    """Be the telco: post what happens as it happens, sped up; until nobody answers any more."""
    client = httpx2.Client(base_url=f"http://{address}", trust_env=False)
    with contextlib.suppress(httpx2.TransportError), client:
        begun_s = time.monotonic()
        lines = iter(story(EVENING, SPEED))
        first_ms, line = next(lines)
        held = [line]
        for at_ms, line in itertools.chain(lines, [(first_ms, b"")]):
            wait_s = (at_ms - first_ms) / 1000.0 / SPEED - (time.monotonic() - begun_s)
            if wait_s > BATCH_S or not line:
                client.post("/v1/events", content=b"".join(held)).raise_for_status()
                held = []
                if ended.wait(max(wait_s, 0.0)):
                    return
            held.append(line)


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
