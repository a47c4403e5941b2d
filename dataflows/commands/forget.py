"""`stayline forget`: everything that a stopped deployment knows of one customer is erased from its state.

Step by step, each durable by itself: killed in between, the same command again does the rest.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from msgspec import Struct

from dataflows.checkpoints import Checkpoints, sole_user
from dataflows.checkpoints.engines import resume, rewrite
from dataflows.commands.sought import Sought, erase_in_lines
from dataflows.config import engine_settings
from dataflows.config.business import catalogue_of
from dataflows.config.outputs import FileOutput, KafkaOutput, WebhookOutput
from dataflows.config.settings import Config
from dataflows.deadletters import DeadLetterFile, record_of
from dataflows.desk import open_store
from dataflows.shards import partitions_folder, snapshot_folders
from dataflows.wording import counted
from detectors.engine import RiskEngine
from schemas.errors import StateError
from schemas.formats.identity import Tokens
from sinks.outbox import About, Outbox
from sinks.outputs import Clock

Report = Callable[[int], None]

RECORD_FOLDERS = ("spool", "resubmitted", "outcomes")
"""Where records lie that were taken: as NDJSON, in files named by number."""


class Forgotten(Struct, frozen=True):
    """What came of it.

    Attributes:
        erased: for each place what was there; nothing of a place where there was nothing.
        left: what cannot be erased from here, one sentence each.
    """

    erased: dict[str, str]
    left: list[str]


def forget(
    customer_id: str, config: Config, clock: Clock, tokens: Tokens | None = None, report: Report = lambda _: None
) -> Forgotten:
    """Erase one customer.

    Args:
        customer_id: the id as events have it: of sources that give numbers, the token.
        config: of the deployment, which must not be running.
        clock: Unix milliseconds.
        tokens: turns identities in vendors' records into tokens, so that the customer is found in them too.
        report: is told how many bytes have been gone through; `size` says how many there are.

    Raises:
        StateError: there is no state, it is damaged, or a deployment is running on it.
    """
    folder = config.state.directory
    if not folder.is_dir():
        raise StateError(f"{folder}: must be the state of a deployment, and there is none")
    with _stopped(folder), _stopped(*(one.parent for one in snapshot_folders(config) if one.parent != folder)):
        erased: dict[str, str] = {}
        about = _about(folder, customer_id, clock)
        sought = Sought(customer_id, about.cases, tokens)
        done = 0
        for path, act in _steps(folder, config, customer_id, sought):
            found = act()
            if found:
                erased[str(path)] = found
            done += path.stat().st_size if path.is_file() else 0
            report(done)
        return Forgotten(erased, _left(config, about))


def size(config: Config) -> int:
    """Return about how many bytes `forget` goes through."""
    return sum(path.stat().st_size for path in config.state.directory.rglob("*") if path.is_file())


@contextlib.contextmanager
def _stopped(*folders: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            for folder in folders:
                stack.enter_context(sole_user(folder))
        except StateError as error:
            raise StateError(
                f"{error}: stop the deployment (SIGTERM), forget, and start it again; nothing was erased"
            ) from None
        yield


def _about(folder: Path, customer_id: str, clock: Clock) -> About:
    """Return what the outbox knows of a customer: it is needed after the bodies are gone."""
    if not (folder / "outbox.sqlite3").exists():
        return About(frozenset(), {})
    with contextlib.closing(Outbox.open(folder / "outbox.sqlite3", {}, clock)) as outbox:
        return outbox.about(customer_id)


def _steps(folder: Path, config: Config, customer_id: str, sought: Sought) -> Iterator[tuple[Path, Callable[[], str]]]:
    """Give every file with what erases in it and says what was there."""
    for draft in [*_drafts(folder), *_drafts(partitions_folder(config) / "partitions")]:
        draft.unlink(missing_ok=True)
    for snapshots in snapshot_folders(config):
        checkpoints = Checkpoints(snapshots)
        checkpoints.drop_unfinished()
        # The newest first: what is written anew is whole, and those before it need nothing that comes after them.
        for name in reversed(checkpoints.versions()):
            yield snapshots / name, partial(_in_checkpoint, checkpoints, name, config, customer_id)
        yield snapshots, partial(_older, checkpoints)
    # Packets of a capture lie in batches that hold many people's; `_left` says so.
    for records in RECORD_FOLDERS if config.input.kind != "hep" else RECORD_FOLDERS[1:]:
        for path in sorted((folder / records).glob("*.ndjson")):
            yield path, partial(_in_records, path, sought)
    letters, outbox = folder / "dead-letters.ndjson", folder / "outbox.sqlite3"
    yield letters, partial(_in_dead_letters, letters, sought)
    yield folder / "desk.sqlite3", partial(_in_desk, config, folder, customer_id)
    # Last: it knows which cases were the customer's, which the other places are searched for.
    yield outbox, partial(_in_outbox, outbox, customer_id)


def _drafts(folder: Path) -> list[Path]:
    """Return the files that a killed process had begun to write, and that nobody will ever read."""
    return [path for path in folder.rglob(".*") if path.is_file()]


def _in_checkpoint(checkpoints: Checkpoints, name: str, config: Config, customer_id: str) -> str:
    engine = RiskEngine(engine_settings(config), catalogue_of(config.remedies))
    places = resume(engine, checkpoints, name)
    found = engine.forget(customer_id)
    # Other files may hold what this state no longer knows of the customer: none is needed beside a whole one.
    if found or not checkpoints.is_whole(name):
        rewrite(engine, places, checkpoints, name)
    return ", ".join(f"{sort} {count}" if count > 1 else sort for sort, count in found.items())


def _older(checkpoints: Checkpoints) -> str:
    """Delete the files that checkpoints were made of before each was whole."""
    for name in checkpoints.versions()[:1]:
        checkpoints.drop_before(name)
    return ""


def _in_records(path: Path, sought: Sought) -> str:
    return _counted(erase_in_lines(path, sought))


def _in_dead_letters(path: Path, sought: Sought) -> str:
    if not path.exists():
        return ""
    count = DeadLetterFile(path).remove(lambda _, letter: sought.stands_in(record_of(letter)))
    return _counted(Counter({"record": count}))


def _in_desk(config: Config, folder: Path, customer_id: str) -> str:
    is_elsewhere = config.desk is not None and config.desk.postgres is not None
    if not is_elsewhere and not (folder / "desk.sqlite3").exists():
        return ""
    with contextlib.closing(open_store(config, folder, lambda: 0)) as store:
        return _counted(Counter({"case": store.forget(customer_id)}))


def _in_outbox(path: Path, customer_id: str) -> str:
    if not path.exists():
        return ""
    with contextlib.closing(Outbox.open(path, {}, lambda: 0)) as outbox:
        return _counted(Counter({"notification": outbox.forget(customer_id)}))


def _counted(found: Counter[str]) -> str:
    return ", ".join(counted(count, sort) for sort, count in found.items() if count)


def _left(config: Config, about: About) -> list[str]:
    """Say what is out of reach."""
    left = []
    for one in config.output:
        sent = f"; of what is still known, about this customer: {n:,}" if (n := about.delivered.get(one.name)) else ""
        if isinstance(one, FileOutput):
            left.append(f"output {one.name}: the lines in {one.path} and in the files it was rotated to{sent}")
        elif isinstance(one, WebhookOutput | KafkaOutput):
            left.append(f"output {one.name}: what its receiver has been sent{sent}")
    if about.cases:
        left.append(f"cases at receivers, of which no message will come any more: {', '.join(sorted(about.cases))}")
    if config.input.kind == "hep":
        packets, calls = config.state.directory / "spool", config.state.directory / "calls"
        left.append(
            f"packets in {packets} and calls still open in {calls}: "
            "they hold many people's at once, and go as the run passes their segments"
        )
    if config.input.kind == "file":
        left.append(f"the input: {', '.join(str(path) for path in config.input.file.paths)}")
    left.append("records of this customer that come again: they are then taken as those of a new one")
    left.append("what was learnt of many customers together, which names nobody; copies and backups of the state")
    return left
