"""Rows of Asterisk's CDR and CEL: in which order their columns stand, and what is taken of them."""

import re
from functools import lru_cache
from typing import Any

from msgspec import Struct

from schemas.deadletters import DeadReason
from schemas.formats import Line, shape
from schemas.formats.calls import Value
from schemas.formats.records import Records, csv_row, delimiter_of, json_object
from schemas.formats.rows import Unfit

_CSV = (
    "accountcode", "src", "dst", "dcontext", "clid", "channel", "dstchannel", "lastapp", "lastdata", "start", "answer",
    "end", "duration", "billsec", "disposition", "amaflags",
)  # fmt: skip
"""The order of cdr_csv.c; what follows depends on its options."""

_CUSTOM = (
    "clid", "src", "dst", "dcontext", "channel", "dstchannel", "lastapp", "lastdata", "start", "answer", "end",
    "duration", "billsec", "disposition", "amaflags", "accountcode", "uniqueid", "userfield", "sequence",
)  # fmt: skip
"""The order of cdr_custom.conf.sample."""

_SQL = (
    "start", "clid", "src", "dst", "dcontext", "channel", "dstchannel", "lastapp", "lastdata", "duration", "billsec",
    "disposition", "amaflags", "accountcode", "uniqueid", "userfield", "peeraccount", "linkedid", "sequence",
)  # fmt: skip
"""The order of the SQL table, whose start is named calldate."""

_CEL = (
    "eventtype", "eventtime", "cidname", "cidnum", "cidani", "cidrdnis", "ciddnid", "exten", "context", "channame",
    "appname", "appdata", "amaflags", "accountcode", "uniqueid", "linkedid", "peer", "userfield", "userdeftype",
    "extra",
)  # fmt: skip
"""The order of cel_custom.conf.sample."""

_SAME = {
    "calldate": "start", "eventextra": "extra", "cid_num": "cidnum", "acctid": "id",
    "caller number": "src", "callee number": "dst", "source channel": "channel", "dest. channel": "dstchannel",
    "start time": "start", "answer time": "answer", "end time": "end", "call time": "duration", "talk time": "billsec",
    "unique id": "uniqueid",
}  # fmt: skip
"""Columns that other back ends, and Grandstream's UCM in the file that it exports, name otherwise."""

TABLES_MAX = 64
"""So many orders of columns are known at once: a switch has one or two."""

_EVENTS = frozenset({
    "ANSWER", "APP_END", "APP_START", "ATTENDEDTRANSFER", "BLINDTRANSFER", "BRIDGE_ENTER", "BRIDGE_EXIT", "CHAN_END",
    "CHAN_START", "DTMF", "FORWARD", "HANGUP", "LINKEDID_END", "LOCAL_OPTIMIZE", "LOCAL_OPTIMIZE_BEGIN", "PARK_END",
    "PARK_START", "PICKUP", "STREAM_BEGIN", "STREAM_END", "USER_DEFINED",
})  # fmt: skip

_OWN_EVENT = re.compile(r"[A-Za-z][A-Za-z0-9_-]{1,63}")
"""What a dial plan calls an event (CELGenUserEvent)."""

DISPOSITIONS = {"NO ANSWER": 19, "BUSY": 17, "CONGESTION": 42, "FAILED": 127, "CANCEL": None, "ANSWERED": None}
"""The nearest Q.850 cause of an unanswered row; FAILED says no more than that the true one was lost: interworking."""

_UNIQUE_ID = re.compile(r"(?:[^,]{1,80}-)?[0-9]{9,11}\.[0-9]{1,10}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9:]{4,6})?")
_EVENT_TIME = re.compile(rf"{_DATE.pattern}|[0-9]{{9,10}}\.[0-9]{{1,9}}")


class Cdr(Struct, gc=False):
    """What is taken of a CDR."""

    src: Value = None
    dst: Value = None
    channel: Value = None
    dstchannel: Value = None
    start: Value = None
    answer: Value = None
    end: Value = None
    duration: Value = None
    billsec: Value = None
    disposition: Value = None
    uniqueid: Value = None
    linkedid: Value = None
    sequence: Value = None
    userfield: Value = None
    rtpaudioqos: Value = None


class Cel(Struct, gc=False):
    """What is taken of a channel event."""

    eventtype: Value = None
    eventtime: Value = None
    cidnum: Value = None
    cidani: Value = None
    ciddnid: Value = None
    exten: Value = None
    channame: Value = None
    uniqueid: Value = None
    linkedid: Value = None
    extra: Value | dict[str, Any] = None


class RowReader:
    """Reads rows of one input: under a header, which also says what stands between columns, or in a known order."""

    def __init__(self) -> None:
        self._cdrs, self._cels = Records(Cdr), Records(Cel)
        self._tables: dict[tuple[tuple[str, ...], int], Records[Cdr] | Records[Cel]] = {}
        """By the names of their columns and how many there are."""
        self._last: tuple[tuple[str, ...], int, Records[Cdr] | Records[Cel]] | None = None
        self._delimiter = ","
        self._cdr_names: tuple[str, ...] = ()
        self._cel_names: tuple[str, ...] = _CEL
        self._cel_event = 0
        self._cel_headed = False
        """The last header was one of CEL rows: their events may have names of the dial plan's own."""

    def read(self, line: Line) -> Cdr | Cel | None:
        """Return a record, or None for a header, which says what the columns are from here on.

        Raises:
            Unfit: its columns are in no known order.
        """
        if line.data.lstrip().startswith(b"{"):
            given = {_SAME.get(name.lower(), name.lower()): value for name, value in json_object(line.data).items()}
            return self._cels.of_object(given) if "eventtype" in given else self._cdrs.of_object(given)
        # Every row holds a time; no column has a colon in its name.
        if b":" not in line.data and self._is_header(line.data):
            return None
        cells = csv_row(line.data, self._delimiter)
        names = self._names(cells)
        if names is None:
            raise self._unfit(cells)
        return self._table(names, len(cells)).of_row(cells)

    def _unfit(self, cells: list[str]) -> Unfit:
        """Say what is wrong with a row of no known columns."""
        if self._cel_headed and len(cells) == len(self._cel_names):
            told = shape(cells[self._cel_event])
            return Unfit(DeadReason.UNKNOWN_VALUE, f"eventtype must be the name of an event, was {told}")
        headed = [len(self._cdr_names)] if self._cdr_names else []
        headed += [len(self._cel_names)] if self._cel_headed else []
        rule = "a row must stand under a header, or have the columns of a CDR or a CEL row in an order that is known"
        if headed:
            rule = f"a row must have as many columns as its header, {' or '.join(map(str, headed))}"
        return Unfit(DeadReason.NOT_JSON, f"{rule}, had {len(cells)}")

    def _table(self, names: tuple[str, ...], width: int) -> Records[Cdr] | Records[Cel]:
        """Return what reads rows of these columns; there may be fewer or more than have a name."""
        # By far most rows are as the one before.
        if self._last is not None and names is self._last[0] and width == self._last[1]:
            return self._last[2]
        table = self._tables.get((names, width))
        if table is None:
            if len(self._tables) == TABLES_MAX:
                self._tables.clear()
            table = Records(Cel) if "eventtype" in names else Records(Cdr)
            table.named((*names, *("" for _ in range(width)))[:width])
            self._tables[names, width] = table
        self._last = names, width, table
        return table

    def _is_header(self, data: bytes) -> bool:
        delimiter = delimiter_of(data)
        named = [cell.strip().lower() for cell in csv_row(data, delimiter)]
        names = tuple(_SAME.get(name, name) for name in named)
        if "eventtype" in names and "uniqueid" in names:
            self._cel_names, self._cel_event, self._cel_headed = names, names.index("eventtype"), True
        elif "disposition" in names and "dst" in names:
            self._cdr_names, self._cel_headed = names, False
        else:
            return False
        self._delimiter = delimiter
        return True

    def _names(self, cells: list[str]) -> tuple[str, ...] | None:
        """Return the names of a row's columns."""
        width = len(cells)
        if width == len(self._cel_names):
            event = cells[self._cel_event]
            if event in _EVENTS or (self._cel_headed and _OWN_EVENT.fullmatch(event)):
                return self._cel_names
        if self._cdr_names:
            return self._cdr_names if width == len(self._cdr_names) else None
        if width >= len(_CSV) and cells[14] in DISPOSITIONS and _is_date(cells[9]):
            unique = width > len(_CSV) and _UNIQUE_ID.fullmatch(cells[16]) is not None
            return _csv_names(width - len(_CSV), unique=unique)
        if width >= len(_CUSTOM) - 3 and cells[13] in DISPOSITIONS and _is_date(cells[8]):
            return _CUSTOM
        if width >= 13 and cells[11] in DISPOSITIONS and _is_date(cells[0]):
            return _SQL
        if width == len(_CEL) and _OWN_EVENT.fullmatch(cells[0]) and _EVENT_TIME.fullmatch(cells[1]):
            return _CEL
        return None


def _is_date(text: str) -> bool:
    return _DATE.fullmatch(text) is not None


@lru_cache
def _csv_names(width: int, *, unique: bool) -> tuple[str, ...]:
    """Name what cdr_csv writes behind its fixed columns too (`loguniqueid`, `loguserfield`, `newcdrcolumns`).

    Args:
        width: how many columns stand there.
        unique: the first one holds a uniqueid.
    """
    new = ("peeraccount", "linkedid", "sequence") if width >= 3 else ()
    own = ("uniqueid" if unique else "userfield", "userfield")[: width - len(new)]
    return (*_CSV, *own, *new)
