"""Readings of the network, and reports of some calls while they last."""

from typing import Any

import numpy as np

from bench.simulator.columns import UNKNOWN, Columns, Ints, generator, take
from bench.simulator.media import mos_of
from bench.simulator.records import call_name
from bench.simulator.schedule import Outage, Schedule
from bench.simulator.spec import HOUR_MS, MINUTE_MS, SECOND_MS
from bench.simulator.world import CODECS, PROBES, SIGNAL_PROBE, World, customer_name

REPORTS_MAX = 6
"""Of one call."""
WATCHED_SHARE = 0.03
"""Share of the healthy lines that are watched; lines at fault are watched more often."""
WATCHED_ILL_SHARE = 0.6
READINGS_A_DAY = 3


def media_reports(world: World, calls: Columns, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Report some answered calls every 10 s or so; before a drop the last report is the worst."""
    chance = world.spec.media_report_ratio * np.where(calls["loss_added"] > 0, 4.0, 1.0)
    seen = (calls["answer_ms"] >= 0) & (calls["probe"] != SIGNAL_PROBE) & ~calls["deaf"]
    seen &= calls["end_ms"] - calls["answer_ms"] > 10 * SECOND_MS
    rows = np.flatnonzero(seen & (rng.random(len(seen)) < chance))
    talk_ms = calls["end_ms"][rows] - calls["answer_ms"][rows]
    count = np.minimum(talk_ms // (10 * SECOND_MS), REPORTS_MAX)
    part = take(calls, np.repeat(rows, count))
    step = np.concatenate([np.arange(1, k + 1) for k in count]) if len(count) else count
    each_ms = np.repeat(talk_ms // count, count) if len(count) else count
    part["loss_ratio"] = np.minimum(part["loss_ratio"] * rng.exponential(1.0, len(step)), 0.7)
    dying = part["spoiled"] & (step == np.repeat(count, count))
    part["loss_ratio"] = np.where(dying, np.maximum(part["loss_ratio"], 0.12), part["loss_ratio"]).round(5)
    part["mos"] = mos_of(part, part["loss_ratio"] + part["discard_ratio"])
    return _write_reports(part, part["answer_ms"] + step * each_ms, each_ms)


def _write_reports(part: Columns, at_ms: Ints, interval_ms: Ints) -> list[dict[str, Any]]:
    columns: dict[str, list[Any]] = {
        "type": ["media"] * len(at_ms),
        "call_id": [call_name(number) for number in part["call"].tolist()],
        "customer_id": [customer_name(customer) for customer in part["customer"].tolist()],
        "at_ms": at_ms.tolist(),
        "interval_ms": interval_ms.tolist(),
        "codec": [CODECS[code] for code in part["codec"]],
        "probe_id": [PROBES[code] for code in part["probe"]],
    }
    for name in ("mos", "loss_ratio", "discard_ratio", "burst_ratio", "jitter_ms", "rtt_ms"):
        columns[name] = part[name].tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def link_readings(world: World, schedule: Schedule, window: tuple[int, int]) -> list[dict[str, Any]]:
    """Read the access nodes every hour, and some customers' lines a few times a day."""
    rng = generator(world.spec.seed, 8, window[0])
    events: list[dict[str, Any]] = []
    for at_ms in range(window[0], window[1], HOUR_MS):
        events += _nodes(world, at_ms + int(rng.integers(0, 5 * MINUTE_MS)), rng)
        if (at_ms // HOUR_MS) % (24 // READINGS_A_DAY) == 1:
            events += _lines(world, schedule, at_ms, rng)
    return events


def _nodes(world: World, at_ms: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    network = world.network
    local_h = (at_ms / HOUR_MS + network.region_utc_offset_h[network.node_region]) % 24
    # Fullest at nine in the evening.
    load = 0.35 + 0.3 * np.cos((local_h - 21.0) / 24.0 * 2.0 * np.pi) + rng.normal(0.0, 0.04, len(local_h))
    return [
        _reading("access_node", network.nodes[node], at_ms, "utilization_ratio", value)
        for node, value in enumerate(np.clip(load, 0.01, 0.99).round(3).tolist())
    ]


def _lines(world: World, schedule: Schedule, at_ms: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Read watched lines: signal margin, retrains since the last reading, registration."""
    n = world.spec.customers
    index = schedule.fault_of
    ill = np.zeros(n, dtype=bool)
    has = np.flatnonzero(index != UNKNOWN)
    table = schedule.table
    ill[has] = (table["start_ms"][index[has]] <= at_ms) & (at_ms < table["end_ms"][index[has]])
    watched = generator(world.spec.seed, 9).random(n) < np.where(ill, WATCHED_ILL_SHARE, WATCHED_SHARE)
    watched &= schedule.left_ms > at_ms
    cut_off = _cut_off(world, schedule.outages, at_ms)
    events = []
    for customer in np.flatnonzero(watched).tolist():
        when_ms = at_ms + int(rng.integers(0, HOUR_MS))
        broken_line = bool(ill[customer]) and _is_line_fault(schedule.faults[index[customer]].cause)
        margin_db = rng.normal(4.5 if broken_line else 10.5, 1.2)
        retrains = int(rng.poisson(2.5 if broken_line else 0.03))
        registered = 0.0 if cut_off[customer] or (broken_line and rng.random() < 0.1) else 1.0
        for metric, value in (
            ("snr_margin_db", round(margin_db, 1)), ("retrains", retrains), ("registered", registered),
        ):  # fmt: skip
            name = customer_name(customer)
            events.append(_reading("customer_line", f"line-{name}", when_ms, metric, value) | {"customer_id": name})
    return events


def _is_line_fault(cause: str) -> bool:
    return cause in {"dsl_line", "cable_upstream", "optical", "radio"}


def _cut_off(world: World, outages: tuple[Outage, ...], at_ms: int) -> np.ndarray[Any, Any]:
    down = [o.code for o in outages if o.element_kind == "access_node" and o.start_ms <= at_ms < o.end_ms]
    return np.isin(world.customers.node, down)


def _reading(kind: str, element: str, at_ms: int, metric: str, value: float) -> dict[str, Any]:
    return {
        "type": "link", "element_kind": kind, "element_id": element, "at_ms": at_ms, "metric": metric,
        "value": value,
    }  # fmt: skip
