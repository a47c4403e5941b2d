"""Calls as the lines a carrier's systems would send: NDJSON, with a few that nobody can read."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from bench.simulator.columns import UNKNOWN, Columns, height, take
from bench.simulator.endings import Q850, REASONS, RELEASED_BY, RELEASERS, SIP_STATUS
from bench.simulator.world import (
    CODECS,
    FIRMWARES,
    MODELS,
    PROBES,
    SBCS,
    SIGNAL_PROBE,
    TECHS,
    TRUNKS,
    World,
    customer_name,
)
from schemas.events import Call

MEDIA_FIELDS = (
    "codec", "mos", "loss_ratio", "discard_ratio", "burst_ratio", "jitter_ms", "rtt_ms", "packets_received",
    "packets_sent", "silence_ms",
)  # fmt: skip
"""What only a call with media has, and only where the probe looks at media."""

SIGNALLING_FIELDS = tuple(name for name in Call.__struct_fields__ if name not in MEDIA_FIELDS)
Signalling = msgspec.defstruct(
    "Signalling", [(name, Any) for name in SIGNALLING_FIELDS], tag_field="type", tag="call", gc=False
)
"""A call as it is written where nobody saw media: the media fields are absent, not null."""


class CallWriter:
    """Writes calls as JSON lines; knows the world's names."""

    def __init__(self, world: World) -> None:
        network = world.network
        self._names: dict[str, NDArray[Any]] = {
            "direction": _words(("in", "out")),
            "released_by": _words(RELEASERS),
            "codec": _words(CODECS),
            "access_node": _words(network.nodes),
            "access_tech": _words([TECHS[tech] for tech in network.node_tech]),
            "cpe_model": _words(MODELS),
            "cpe_firmware": _words(FIRMWARES),
            "trunk": _words(TRUNKS),
            "sbc": _words(SBCS),
            "region": _words(network.regions),
            "probe_id": _words(PROBES),
            "reason": _words(REASONS),
        }
        self._encode = msgspec.json.Encoder().encode

    def lines(self, calls: Columns) -> list[bytes]:
        """Write one line a call, without line ends, in the order given."""
        lines: NDArray[Any] = np.empty(height(calls), dtype=object)
        heard = (calls["answer_ms"] >= 0) & (calls["probe"] != SIGNAL_PROBE)
        for rows, record in ((heard, Call), (~heard, Signalling)):
            fields = self._fields(take(calls, rows))
            columns = [fields[name] for name in record.__struct_fields__]
            lines[rows] = list(map(self._encode, map(record, *columns)))
        broken = np.flatnonzero(calls["broken"] != UNKNOWN)
        for row in broken:
            lines[row] = _BREAK[calls["broken"][row]](lines[row])
        written: list[bytes] = lines.tolist()
        return written

    def _fields(self, calls: Columns) -> dict[str, list[Any]]:
        """Lay out every field as a list of JSON values, NaN and None for what is not known."""
        ending = calls["ending"]
        codes = {
            "released_by": RELEASED_BY[ending], "codec": calls["codec"], "access_node": calls["node"],
            "access_tech": calls["node"], "cpe_model": calls["model"], "cpe_firmware": calls["firmware"],
            "trunk": calls["trunk"], "sbc": calls["sbc"], "region": calls["region"], "probe_id": calls["probe"],
        }  # fmt: skip
        columns: dict[str, list[Any]] = {
            "call_id": [call_name(number) for number in calls["call"].tolist()],
            "customer_id": [customer_name(customer) for customer in calls["customer"].tolist()],
            "start_ms": calls["start_ms"].tolist(),
            "answer_ms": _nullable(calls["answer_ms"]),
            "end_ms": calls["end_ms"].tolist(),
            "direction": self._names["direction"][calls["outbound"].astype(np.int64)].tolist(),
            "peer_id": [peer_name(peer) for peer in calls["peer"].tolist()],
            "sip_status": SIP_STATUS[ending].tolist(),
            "q850": _nullable(Q850[ending]),
            "reason": self._names["reason"][ending].tolist(),
        }
        for name in MEDIA_FIELDS[1:]:
            columns[name] = calls[name].tolist()
        return columns | {name: self._names[name][code].tolist() for name, code in codes.items()}


def call_name(number: int) -> str:
    """Write a call's id."""
    return f"{number:016x}"


def peer_name(number: int) -> str:
    """Write a far end's token."""
    return f"{number:012x}"


def _words(names: Any) -> NDArray[Any]:
    words: NDArray[Any] = np.empty(len(names), dtype=object)
    words[:] = names
    return words


def _nullable(values: NDArray[Any]) -> list[int | None]:
    boxed = values.astype(object)
    boxed[values == UNKNOWN] = None
    written: list[int | None] = boxed.tolist()
    return written


def _with(line: bytes, **changes: Any) -> bytes:
    return orjson.dumps(orjson.loads(line) | changes)


def _without(line: bytes, field: str) -> bytes:
    return orjson.dumps({name: value for name, value in orjson.loads(line).items() if name != field})


def _backwards(line: bytes) -> bytes:
    return _with(line, end_ms=orjson.loads(line)["start_ms"] - 60_000)


_BREAK: tuple[Callable[[bytes], bytes], ...] = (
    lambda line: line[: len(line) // 2],
    lambda line: _with(line, start_ms="yesterday"),
    lambda line: _without(line, "customer_id"),
    lambda line: _without(line, "end_ms"),
    _backwards,
    lambda line: _with(line, type="cdr"),
    lambda line: line.replace(b'"call_id":"', b'"call_id":"\xff\xfe', 1),
    lambda line: _with(line, sip_status=7_000),
)
"""The ways in which a record can be unreadable."""

BREAKS = len(_BREAK)
