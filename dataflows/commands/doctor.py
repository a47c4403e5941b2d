"""`stayline doctor`: reads a minute of a deployment's input and says what arrives, and what is missing for more.

It takes nothing and changes nothing, so that it may look at a live feed:

- a **file** is read from its beginning; one that is followed is followed for the minute;
- over **HTTP** records are looked at and refused (503, come again later), so their sender keeps them. The same body
  sent again is not counted again;
- **HEP** packets are copies in the first place. They are put into a folder that is gone afterwards, and calls that
  are open when the minute is over are no dead letters;
- **Kafka**'s messages are read from `start` on, and no offset is shown to the brokers.

Listening needs the configured address, which a running deployment holds: stop it for the minute, or give the doctor a
configuration with another address and let a sender send there as well.
"""

import contextlib
import datetime as dt
import hashlib
import os
import queue
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from msgspec import Struct
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dataflows import config as configuration
from dataflows.commands.examination import Examination, Findings, Pattern
from dataflows.config.settings import Config
from dataflows.inputs import hep
from dataflows.inputs.chunks import Chunk, converted
from dataflows.inputs.files import FileReader, Place
from dataflows.inputs.folder import files_of
from dataflows.inputs.http import BODY_BYTES_MAX, Server, items_of
from dataflows.inputs.kafka import KafkaReader
from dataflows.inputs.kafka_client import connection
from dataflows.inputs.spool import Spool
from dataflows.wording import counted
from schemas.deadletters import DeadReason
from schemas.errors import ConfigError, InputError
from schemas.formats import HEAD_BYTES, Format, described, open_format
from schemas.formats.hep import HepReader, open_hep
from schemas.formats.hep.table import Counts
from schemas.formats.masks import refused

SECONDS = 60.0
"""A minute shows every phone that reports every few seconds, and no more than a coffee is waited for."""

RECORDS_MAX = 200_000
"""More say nothing new, and what is remembered of them is bounded: some 40 MB."""

IDLE_S = 0.05
"""How soon an input that had nothing is asked again."""

BODIES_MAX = 64
"""So many requests wait to be looked at; further ones are refused unseen."""

Announce = Callable[[str], None]
Report = Callable[[int], None]


class Diagnosis(Struct):
    """What the doctor found.

    Attributes:
        input: kind of the input.
        format: what it is written in.
        seconds: how long was read.
        live: records were read as they came; otherwise they were there already.
        span_s: what rates are taken over: of an input that is live the same, of a file the time that its events span.
        ended: why no more was read: `time`, `records`, or `input` (it was read to its end).
        findings: see there.
        not_seen: fields that the format can give and no event had.
        notes: what else is to be known, a sentence each.
    """

    input: str
    format: str
    seconds: float
    live: bool
    span_s: float
    ended: str
    findings: Findings
    not_seen: list[str]
    notes: list[str]


class _Source(Struct):
    """An input, opened. `notes` tells what it has to say when all is read."""

    chunks: Iterator[Chunk | None]
    live: bool
    notes: Callable[[], list[str]] = list


def diagnose(
    config: Config,
    token_key: bytes | None,
    announce: Announce,
    *,
    seconds: float = SECONDS,
    report: Report = lambda _: None,
) -> Diagnosis:
    """Read some of the input and say what arrived.

    Args:
        config: a valid configuration.
        token_key: turns identities into tokens; None: the format has no use for it.
        announce: is told where is listened.
        seconds: how long to read at most.
        report: is told how many seconds have passed.

    Raises:
        ConfigError: a secret is missing, or an address cannot be listened on.
        InputError: a file cannot be read, or is not in the configured format.
    """
    with contextlib.ExitStack() as stack:
        source = _opened(config, token_key, announce, stack)
        examination = Examination(live=source.live)
        begun_s, ended = time.monotonic(), "input"
        for chunk in source.chunks:
            if chunk is not None:
                examination.take(chunk, time.time_ns() // 1_000_000)
            passed_s = time.monotonic() - begun_s
            report(int(passed_s))
            if passed_s >= seconds or examination.records >= RECORDS_MAX:
                ended = "time" if passed_s >= seconds else "records"
                break
            if chunk is None:
                time.sleep(min(IDLE_S, seconds - passed_s))
        findings = examination.findings()
        passed_s = time.monotonic() - begun_s
        spanned_s = ((findings.last_ms or 0) - (findings.first_ms or 0)) / 1000.0
        return Diagnosis(
            config.input.kind,
            config.input.format if config.input.kind != "hep" else "hep",
            passed_s,
            source.live,
            passed_s if source.live else spanned_s,
            ended,
            findings,
            _not_seen(config, findings),
            source.notes(),
        )


def _opened(config: Config, token_key: bytes | None, announce: Announce, stack: contextlib.ExitStack) -> _Source:
    kind = config.input.kind
    if kind == "file":
        return _of_files(config, token_key)
    if kind == "http":
        bodies: queue.Queue[bytes] = queue.Queue(BODIES_MAX)
        server = Server(_looking(bodies), *config.input.http.listen)
        server.start()
        stack.callback(server.stop)
        announce(f"listening for events on http://{server.address}/v1/events; what comes is looked at and refused")
        return _Source(_of_bodies(bodies, _opener(config, token_key)), live=True)
    if kind == "hep":
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stayline-doctor-")))
        reader = open_hep(configuration.format_options(config, token_key))
        packets = hep.Source(Spool(folder / "spool"), folder / "calls", reader)
        listener = hep.Listener(packets.spool, *config.input.hep.listen)
        listener.start()
        stack.callback(listener.stop)
        announce(f"listening for HEP3 packets on {listener.address}, UDP and TCP")
        cuts = (None if cut is None else cut.chunk for cut in packets.read(None))
        return _Source(cuts, live=True, notes=lambda: _of_packets(listener, packets))
    assert config.input.kafka is not None  # noqa: S101 - the configuration would not hold
    secrets = configuration.resolve_secrets(config, os.environ)
    opener = _opener(config, token_key)
    group = f"stayline-doctor-{config.deployment.name}"
    messages = KafkaReader(config.input.kafka, connection(config.input.kafka, secrets.input_password), group, opener)
    stack.callback(messages.close)
    return _Source(_of_messages(messages), live=config.input.kafka.start == "latest")


def _opener(config: Config, token_key: bytes | None) -> Callable[[], Format] | None:
    """Return what opens the input's format; None: contract events."""
    if config.input.format == "stayline":
        return None
    return partial(open_format, config.input.format, configuration.format_options(config, token_key))


def _of_messages(reader: KafkaReader) -> Iterator[Chunk | None]:
    for poll in reader.read(None):
        if poll is None:
            yield None
        else:
            yield from poll.joined()


def _of_files(config: Config, token_key: bytes | None) -> _Source:
    given = config.input.file
    if not given.paths:
        raise ConfigError(["input.file.paths: must name at least one file where input.kind is file, was empty"])
    opener, readers = _opener(config, token_key), list[HepReader]()

    def opened() -> Format:
        assert opener is not None  # noqa: S101 - else it is not given
        reader = opener()
        if isinstance(reader, HepReader):
            readers.append(reader)
        return reader

    follow = given.follow and not given.paths[0].is_dir()
    files = FileReader(files_of(given.paths), Place(), open_format=opener and opened, follow=follow)
    return _Source(
        (None if cut is None else cut.chunk for cut in files),
        live=given.follow,
        notes=lambda: [note for reader in readers for note in _of_counts(reader.counts)],
    )


def _looking(bodies: "queue.Queue[bytes]") -> Starlette:
    """Return the application that looks at records and takes none."""

    async def events(request: Request) -> Response:
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                if len(body) > BODY_BYTES_MAX:
                    return Response(status_code=413)
        except ClientDisconnect:
            return Response(status_code=400)
        with contextlib.suppress(queue.Full):
            bodies.put_nowait(bytes(body))
        detail = "a doctor is looking at the records and takes none: send them again when it has gone"
        return JSONResponse({"status": 503, "detail": detail}, 503, {"retry-after": str(int(SECONDS))})

    return Starlette(routes=[Route("/v1/events", events, methods=["POST"])])


def _of_bodies(bodies: "queue.Queue[bytes]", opener: Callable[[], Format] | None) -> Iterator[Chunk | None]:
    """Give each body once, for ever."""
    seen: set[bytes] = set()
    while True:
        try:
            body = bodies.get_nowait()
        except queue.Empty:
            yield None
            continue
        digest = hashlib.sha256(body).digest()
        if digest not in seen:
            seen.add(digest)
            if opener is not None:
                yield _of_body(f"body {len(seen)}", body, opener)
                continue
            data = body if body.endswith(b"\n") else body + b"\n"
            yield Chunk("http", f"body {len(seen)}", data, range(1, data.count(b"\n") + 1))


def _of_body(name: str, body: bytes, opener: Callable[[], Format]) -> Chunk:
    """Convert a body; one that is not in the format at all is a dead letter here, where it would be refused."""
    try:
        return converted("http", name, items_of(body, opener))
    except InputError as error:
        return converted("http", name, [refused(1, DeadReason.NOT_JSON, str(error), body[:HEAD_BYTES])])


def _of_packets(listener: hep.Listener, source: hep.Source) -> list[str]:
    """Say what became of packets that gave no event."""
    notes = [f"{counted(listener.received, 'packet')} came", *_of_counts(source.counts)]
    notes.append(f"open or just over: {counted(source.open_calls, 'call')}")
    dropped = listener.dropped()
    if dropped:
        notes.append(f"the kernel dropped {counted(dropped, 'datagram')} for want of room: raise net.core.rmem_max")
    return notes


def _of_counts(counts: Counts) -> list[str]:
    """Return what became of packets."""
    notes = [
        f"{counted(counts.packets, 'packet')} read, {counts.other:,} of protocols that are not",
        f"{counted(counts.strays, 'packet')} stray: SIP or RTCP of calls whose INVITE was not seen",
        f"{counted(counts.calls, 'call')} began; {counts.expired:,} expired without a word, {counts.evicted:,} evicted",
    ]
    if counts.foreign:
        notes.append(
            f"{counted(counts.foreign, 'call')} had no customer on either side: see input.hep.customer_networks"
        )
    return notes


def _not_seen(config: Config, findings: Findings) -> list[str]:
    """Return what the format can give and no event had; nothing where no event came at all."""
    name = "hep" if config.input.kind == "hep" else config.input.format
    known = {one for fields in findings.types.values() for one in fields.shares}
    gives = next((one.gives for one in described() if one.name == name), ())
    return [one for one in gives if one.isidentifier() and one not in known] if known else []


def told(diagnosis: Diagnosis) -> Iterator[str]:
    """Say it for people."""
    found = diagnosis.findings
    span_s = max(diagnosis.span_s, 1.0)
    measure = "as they came" if diagnosis.live else "by their own times"
    why = {
        "time": "the time was over",
        "records": "that is enough to judge by",
        "input": "the input was read to its end",
    }
    yield (
        f"{diagnosis.input} input, format {diagnosis.format}: {counted(found.records, 'record')}, "
        f"{found.records / span_s:,.2f}/s {measure}; read for {diagnosis.seconds:.1f} s, {why[diagnosis.ended]}"
    )
    if found.answered or found.unanswered:
        twice = counted(found.duplicates, "duplicate event")
        yield f"  calls  {found.answered:,} answered, {found.unanswered:,} not; {twice}"
    yield from (f"  note   {note}" for note in diagnosis.notes)
    yield from _of_times(found)
    if found.probes:
        yield "probes"
        for name, count in found.probes.items():
            yield f"  {name or '(none named)':<24} {count:>10,} records  {count / span_s:>10,.2f}/s"
    for kind, fields in found.types.items():
        yield f"fields of {kind} ({counted(fields.records, 'record')})"
        for name, share in sorted(fields.shares.items(), key=lambda one: -one[1]):
            yield f"  {name:<24} {share:>7.1%}"
    if diagnosis.not_seen:
        yield textwrap.fill(
            f"never seen, though {diagnosis.format} can give them: {', '.join(diagnosis.not_seen)}", 116,
            subsequent_indent="  ",
        )  # fmt: skip
    if found.dead_letters:
        yield "dead letters"
        for reason, letters in found.dead_letters.items():
            yield f"  {letters.records:>8,}  {reason}, first at {letters.at}: {letters.detail}"
    yield "patterns"
    yield from (f"  {kind:<15} {_verdict(kind, pattern)}" for kind, pattern in found.patterns.items())


def _of_times(found: Findings) -> Iterator[str]:
    if found.first_ms is not None and found.last_ms is not None:
        first, last = (dt.datetime.fromtimestamp(ms / 1000, dt.UTC) for ms in (found.first_ms, found.last_ms))
        yield f"  times  {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC"
    if found.late is not None:
        late = found.late
        yield f"  late   {late.p50_s:,.1f} s in the median, {late.p99_s:,.1f} s (p99), {late.max_s:,.1f} s at most"
    if found.behind is not None and found.behind.max_s:
        yield f"  order  one in a hundred is {found.behind.p99_s:,.1f} s or more behind the newest before it"


def _verdict(kind: str, pattern: Pattern) -> str:
    calls = {
        "setup_failure": "calls that were not answered",
        "drop_rate": "answered calls",
        "one_way_audio": "answered calls",
    }
    where = calls.get(kind, "calls")
    if not pattern.calls:
        return f"cannot be told: no {where} came"
    if pattern.missing:
        groups = (" or ".join(group) for group in pattern.missing)
        return f"cannot be found: needs {', and '.join(groups)}, and none came with {pattern.calls:,} {where}"
    return f"can be found, in {pattern.share:.0%} of {pattern.calls:,} {where}"
