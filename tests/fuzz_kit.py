"""What must hold of every decoder, whatever bytes it is given: shared by `make fuzz` and the short run in `make test`.

A target takes bytes and raises if a promise does not hold; what the input itself may be told (`InputError`) is none.
"""

import io
import itertools
from collections.abc import Callable, Iterator

import msgspec
import orjson
from formats_kit import CASES, FORMATS, options, source
from hep_kit import MONDAY_MS, Dialog, report

from schemas.arrow.writer import write_arrow
from schemas.decode import RECORD_BYTES_MAX, Decoder, RecordError, decode_record
from schemas.errors import InputError
from schemas.formats import Converted, Options, open_format
from schemas.formats.arrow import decode_stream
from schemas.formats.columnmap import ColumnMap
from schemas.formats.masks import masked, masked_binary

EVENTS = b"".join((FORMATS / f"{case}.ndjson").read_bytes() for case in CASES)
CSV = Options(
    tokens=options().tokens,
    csv=ColumnMap(
        columns={"call_id": "id", "customer_id": "from", "start_ms": "at", "duration_s": "s", "loss_percent": "loss"},
        date_formats=("iso", "%d/%m/%Y %H:%M"),
        decimal_comma=True,
        delimiter=";",
    ),
)


def vendor(name: str, data: bytes) -> None:
    """A format gives events in their places or rejects, the same wherever the input is cut, and shows nobody."""
    opts = CSV if name == "csv" else options()
    cut = len(data) * (data[0] if data else 0) // 256
    try:
        whole, parts = read(name, opts, data), read(name, opts, data[:cut], data[cut:])
    except InputError:
        return
    assert whole == parts, "where chunks are cut must change nothing"
    positions = [item.position for item in whole]
    assert min(positions, default=1) >= 1
    for item in whole:
        if isinstance(item, Converted):
            orjson.loads(item.line)
            assert b"\n" not in item.line
            judge(item.line)
        else:
            assert "\n" not in item.detail
            assert item.record in (masked(item.record), masked_binary(item.record)) or is_draft(item.record)


def read(name: str, opts: Options, *chunks: bytes) -> list:
    reader = open_format(name, opts)
    return [item for chunk in chunks for item in reader.feed(chunk)] + reader.finish()


def is_draft(record: bytes) -> bool:
    """Tell whether this is what `hep` knows of a call that becomes no event: tokens and times."""
    return record.startswith(b'{"type":"call","call_id":"tok_')


def judge(line: bytes) -> object:
    """Return the event, or the reason why it is none."""
    try:
        return decode_record(line)
    except RecordError as error:
        return error.reason


def events(data: bytes) -> None:
    """The compiled decoder takes and refuses what `decode_record` does, and nothing else."""
    batch = Decoder().decode(data)
    lines = [(at, line) for at, line in enumerate(data.split(b"\n")) if line.strip(b" \t\r")]
    assert batch.records == len(lines)
    if all(len(line) < RECORD_BYTES_MAX for _, line in lines):
        refused = [at for at, line in lines if not isinstance(judge(line), msgspec.Struct)]
        assert [reject.position for reject in batch.rejects] == refused
    taken = len(batch.calls) + len(batch.media) + len(batch.links) + len(batch.business)
    assert taken + len(batch.rejects) == batch.records


def arrow(data: bytes) -> None:
    """An Arrow stream is rows and rejects, or no Arrow stream."""
    try:
        for batch in decode_stream(Decoder(), data):
            assert batch.records >= len(batch.calls) + len(batch.media) + len(batch.links)
    except InputError:
        return


def dialogs() -> Iterator[Dialog]:
    """Give calls as their packets, with and without a reason."""
    for reason in ("", 'Reason: Q.850;cause=16;text="Normal"'):
        dialog = Dialog()
        up_ms = dialog.answered(MONDAY_MS)
        dialog.rtcp(
            up_ms + 5_000, report(sent=250, block={"fraction_lost": 4}), ("192.0.2.10", 4001), ("192.0.2.20", 6001)
        )
        dialog.released(up_ms + 60_000, *filter(None, [reason]))
        yield dialog


def _arrow_seeds() -> Iterator[bytes]:
    for kind, rows in itertools.product(("call", "media"), (8, 1_000)):
        out = io.BytesIO()
        write_arrow(EVENTS.splitlines(), out, kind, rows=rows)
        yield out.getvalue()


def _golden(name: str) -> list[bytes]:
    return [source(case) for case in CASES if case.startswith(f"{name}/")]


_ROWS = b'id;from;at;s;loss\n1;01632960001;2026-01-02 09:30;60;0,5\n2;"a ""b""\n";2/1/2026 09:30;01:10;\n'

SEEDS: dict[str, list[bytes]] = {
    **{name: _golden(name) for name in ("freeswitch", "asterisk", "kamailio", "cucm", "voipmonitor", "vqrtcpxr")},
    "csv": [_ROWS],
    "hep": [dialog.data() for dialog in dialogs()],
    "arrow": list(_arrow_seeds()),
    "events": [EVENTS],
}
"""Target -> sound inputs, from which fuzzing starts."""


def target(name: str) -> Callable[[bytes], None]:
    """Return what is to be fuzzed under a name of `SEEDS`."""
    if name == "events":
        return events
    return arrow if name == "arrow" else lambda data: vendor(name, data)
