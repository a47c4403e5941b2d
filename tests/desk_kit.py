"""What the tests of the desk share: alerts with everything in them, a desk to ask, a database server, a page read."""

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import psycopg
import pytest
import uvicorn
from msgspec.structs import replace
from needs_kit import absent, needs
from starlette.testclient import TestClient

from schemas.alerts import (
    Alert,
    CallEvidence,
    Cause,
    ChurnRisk,
    Credit,
    Dimension,
    Driver,
    Incident,
    Notification,
    Pattern,
    Remedy,
    notification,
)
from schemas.events import Outcome
from sinks.desk.app import desk_application
from sinks.desk.postgres import PostgresDatabase
from sinks.desk.sqlite import SqliteDatabase
from sinks.desk.store import DeskStore

NOW_MS = 1_768_680_000_000
HOME = "http://127.0.0.1:8080"
REMEDY = Remedy("timer_fix", "Fix the timer", "I am fixing it.", "It fits.", 300, 4_120, Credit(573, "EUR", "4 x 1"))
HOSTILE = "\"'><script src=//x></script><img src=x onerror=alert(1)>{{7*7}}&amp;\u202e/../%2f"

POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


class FakeClock:
    """Time that stands still until it is told otherwise."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def alert(alert_id: str = "al_1", **changes: Any) -> Alert:
    """An alert with everything in it; `changes` are fields of it."""
    base = Alert(
        alert_id=alert_id,
        revision=1,
        customer_id="c0001",
        severity="major",
        detected_ms=NOW_MS,
        since_ms=NOW_MS - 86_400_000,
        pattern=Pattern("duration_lock", "4 of 5 calls.", 9, 5, 4, 0.8, 0.0154, 6.8, Dimension("duration_s", "32")),
        cause=Cause("sip_timer_or_nat", 0.78, ["far_end"]),
        incident_id=None,
        churn=ChurnRisk(0.2, "high", 0.015, [Driver("tenure_days", -0.3, "A customer for 6 years")], "model@1"),
        value_at_risk_minor=21_840,
        currency="EUR",
        remedies=[REMEDY],
        calls=[CallEvidence(f"k{n}", NOW_MS + 60_000 * n, "dropped", 32_000, 4.1) for n in range(3)],
        region="north",
        segment="consumer",
    )
    return replace(base, **changes)


def incident(incident_id: str = "in_1", **changes: Any) -> Incident:
    text = "412 of 1630 calls were cut off."
    node = ("access_node", "dsl-41", NOW_MS, NOW_MS, None, 137, 412, 1630, 0.25, 0.018, 48.2, text)
    return replace(Incident(incident_id, 1, *node), **changes)


def told(data: Alert | Incident, word: str = "opened", at_ms: int = NOW_MS) -> Notification:
    family = "alert" if isinstance(data, Alert) else "incident"
    return notification("west", f"stayline.{family}.{word}", at_ms, data)


def poisoned(value: Any, name: str = "") -> Any:
    """Put hostile text wherever text is free."""
    if isinstance(value, dict):
        return {key: poisoned(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each) for each in value]
    return HOSTILE if isinstance(value, str) and name not in ("severity", "kind", "band") else value


# Databases


class PostgresServer:
    """A PostgreSQL server of its own, in a folder of its own, on a socket there; never as root."""

    def __init__(self, folder: Path) -> None:
        assert POSTGRES is not None
        self._folder = folder
        self._numbers = itertools.count(1)
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
        self._run("initdb", "-D", str(folder / "data"), "-U", "stayline", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        self._run("pg_ctl", "-D", str(folder / "data"), "-w", "-o", options, "-l", str(folder / "log"), "start")
        self.url = f"host={folder} user=stayline dbname=postgres"

    def _run(self, program: str, *arguments: str) -> None:
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        command = [*as_user, str(POSTGRES / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout + done.stderr

    def fresh(self) -> str:
        """Make an empty database; return its address."""
        name = f"desk{next(self._numbers)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url.replace("dbname=postgres", f"dbname={name}")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-w", "-m", "immediate", "stop")

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self._folder} -c fsync=off"
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-w", "-o", options, "-l", "/dev/null", "start")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    if POSTGRES is None:
        absent("postgresql", "it is not installed")
    # Not under pytest's own folder, which lets nobody through but its owner.
    with tempfile.TemporaryDirectory(prefix="stayline-postgres-") as folder:
        server = PostgresServer(Path(folder))
        yield server
        server.stop()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteDatabase | PostgresDatabase]:
    """Each kind of database, empty."""
    if request.param == "sqlite":
        database: SqliteDatabase | PostgresDatabase = SqliteDatabase(tmp_path / "desk" / "desk.db")
    else:
        database = PostgresDatabase(request.getfixturevalue("postgres").fresh())
    yield database
    database.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[DeskStore]:
    """A store in a file: the pages do not know which database they stand on."""
    store = DeskStore(SqliteDatabase(tmp_path / "desk" / "desk.db"), clock)
    yield store
    store.close()


# Pages


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def cases(self) -> list[str | None]:
        return [each["data-case"] for each in self.all("li") if "data-case" in each]

    def values(self) -> dict[str, str | None]:
        return {each["name"]: each.get("value") for each in self.all("input") if each.get("type") == "hidden"}


@pytest.fixture
def desk(store: DeskStore) -> Iterator[SimpleNamespace]:
    """A desk without login, asked by this machine."""
    outcomes: list[Outcome] = []
    application = desk_application(store, outcomes.append)
    with TestClient(application, base_url=HOME, client=("127.0.0.1", 50_000)) as client:
        get = lambda path: Page(client.get(path).text)  # noqa: E731  a word of the desk
        yield SimpleNamespace(client=client, outcomes=outcomes, store=store, get=get)


@contextlib.contextmanager
def serving(application: Any, port: int = 0) -> Iterator[str]:
    """Put an application behind a real server; give its address."""
    config = uvicorn.Config(application, host="127.0.0.1", port=port, log_config=None, lifespan="off")
    server, listening = uvicorn.Server(config), config.bind_socket()
    # It is bound, but would refuse until the thread has come to it.
    listening.listen()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        if hasattr(application.state, "streams"):
            application.state.streams.close()
        server.should_exit = True
        thread.join(10.0)
        listening.close()
        assert not thread.is_alive()


@pytest.fixture
def served(store: DeskStore) -> Iterator[SimpleNamespace]:
    """The desk behind a real server: the test client decodes paths twice, and cannot read a stream that goes on."""
    outcomes: list[Outcome] = []
    application = desk_application(store, outcomes.append)
    with (
        serving(application) as base,
        httpx2.Client(base_url=base, timeout=10.0, trust_env=False, follow_redirects=True) as client,
    ):
        yield SimpleNamespace(client=client, application=application, store=store, outcomes=outcomes, base=base)


def chromium() -> str:
    """Return the system's browser; skip where there is none, unless it is required."""
    return shutil.which("chromium-browser") or needs("chromium")
