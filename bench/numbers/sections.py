"""The sections of the page: one run of `stayline bench` each."""

import statistics
from collections.abc import Callable

from bench.harness import quantiles
from bench.numbers.runs import Line, Run, picture, raced, table, times
from bench.peers.race import PEERS
from bench.plot import bar_chart


def _speed(run: Run, _: dict[str, str]) -> list[str]:
    names = ("decode", "detect", "flow", "flow, checkpoints", "decode, arrow", "flow, arrow")
    rows = [(name, f"{run.rate(name):,.0f}", f"{run.ratio(name):.2f}") for name in names]
    broken, flood = run.one("broken"), run.one("flood")
    peak_mb = flood["flooded"]["peak_bytes"] / 1e6
    sizes = [line["residence"] for line in run.of("customers")]
    each = (sizes[-1]["held_bytes"] - sizes[0]["held_bytes"]) / (sizes[-1]["customers"] - sizes[0]["customers"])
    both = [statistics.median(size["both_per_s"]) for size in sizes]
    latencies = [(line["name"], quantiles(line["told_ms"])) for line in run.of("latency") if line["told_ms"]]
    return [
        "A rate beside that of `orjson.loads` over the same bytes in the same run.",
        "",
        *table(("one core", "events/s", "x orjson.loads"), *rows),
        "",
        f"- One broken record in a hundred: {broken['ratio']:.2f} of the rate.",
        f"- A further customer takes {each:,.0f} bytes, measured from the process.",
        f"- With {sizes[-1]['customers']:,} customers resident, calls are decoded and judged at",
        f"  {both[-1] / both[0]:.2f} of the rate with {sizes[0]['customers']:,}.",
        f"- {flood['strangers']:,} unknown customers in a minute: at most {peak_mb:,.0f} MB,",
        f"  {flood['flooded']['evicted']:,} evicted and counted.",
        "",
        *table(
            ("from due to told, ms", "p50", "p99", "p99.9"),
            *((name, *(f"{value:,.0f}" for value in values)) for name, values in latencies),
        ),
        "",
        *_where_time_goes(run.one("profile")),
        *picture(f"{run.stem}-parts", "Where the time of an event goes"),
        *picture(f"{run.stem}-latency", "Latency by share of the notifications"),
        *picture(f"{run.stem}-customers", "Rate by number of customers"),
    ]


def _where_time_goes(profile: Line) -> list[str]:
    """Say it in a paragraph: the parts from the largest on, and what no reader of JSON can go below."""
    parts, floors = profile["flow_us"], profile["floors_us"]
    whole = sum(parts.values())
    shares = ", ".join(
        f"{name} {parts[name] / whole:.0%}" for name in sorted(parts, key=parts.__getitem__, reverse=True)
    )
    floor = "; ".join(f"{name}: {floor_us:.2f}" for name, floor_us in floors.items())
    return [
        f"An event takes {whole:.2f} microseconds from file to notification, checkpoints included: {shares}.",
        f"Floors, in microseconds an event: {floor}.",
    ]


def _kafka(run: Run, _: dict[str, str]) -> list[str]:
    rates = [line["rate"] for line in run.of("rate") if line["rate"]["digest"]]
    rows = [
        (one["name"], f"{run.rate(one['name']):,.0f}", f"{statistics.median(one['per_cpu_second']):,.0f}")
        for one in rates
    ]
    return [
        "From a real broker on the same machine; a second of cpu is what others leave of a core. A message holds one",
        "event, or 50 (*lines*), or 4,000 rows of Arrow; *calls* is without other events.",
        "",
        *table(("", "events/s", "a second of cpu"), *rows),
    ]


def _state(run: Run, _: dict[str, str]) -> list[str]:
    rows = []
    for line in run.of("stalls"):
        one = line["stalls"]
        p99 = quantiles(one["stall_s"])[1]
        cells = (
            f"{1e3 * p99:,.1f}",
            f"{statistics.median(one['written_bytes']) / 1e6:,.0f}",
            f"{one['held_bytes'] / 1e6:,.0f}",
            f"{one['restart_s']:.1f}",
        )
        rows.append((f"{one['customers']:,}", *cells))
    head = ("customers resident", "flow waits, ms p99", "MB a checkpoint", "MB on disk", "restart, s")
    return ["Ten thousand calls a second, a checkpoint every five seconds.", "", *table(head, *rows)]


def _delivery(run: Run, _: dict[str, str]) -> list[str]:
    sent, metering = run.one("delivery"), run.one("metering")
    desk = [(line["name"], f"{line['p50_ms']:.1f}", f"{line['p99_ms']:.1f}") for line in run.of("desk")]
    return [
        f"- Notifications of 4 kB made durable: {sent['count'] / sent['put_s']:,.0f}/s.",
        f"- Webhooks, signed, to a receiver on this machine: {sent['count'] / sent['sent_s']:,.0f}/s.",
        f"- Counting for Prometheus: {metering['meters_s'] / metering['flow_s']:.2%} of the flow's time;",
        f"  what was counted is collected in {1e3 * metering['scrape_s']:.1f} ms a scrape.",
        "",
        *table((f"desk, {run.one('desk')['cases']:,} open cases, ms", "p50", "p99"), *desk),
    ]


def _formats(run: Run, pictures: dict[str, str]) -> list[str]:
    rates = {line["name"]: line["per_cpu_second"] for line in run.of("format")}
    pictures[f"{run.stem}-rates"] = bar_chart(
        "Vendor records to events", {name: {name: rate} for name, rate in rates.items()}, unit="records/s"
    )
    hep = [
        (
            f"{line['offered']:,}",
            f"{line['packets']:,}",
            f"{line['dropped']:,}",
            f"{line['dropped'] / line['packets']:.1%}",
        )
        for line in run.of("hep")
    ]
    return [
        "Records a second of processor time, made tokens of and turned into events of the contract.",
        "",
        *table(("format", "records/s"), *((name, f"{rate:,.0f}") for name, rate in rates.items())),
        *picture(f"{run.stem}-rates", "Records a second by format"),
        "",
        "HEP3 over UDP, sender and listener on the same two cores:",
        "",
        *table(("packets/s offered", "sent", "lost", "share"), *hep),
    ]


def _detection(run: Run, _: dict[str, str]) -> list[str]:
    rows = []
    for line in run.one("detection")["rows"]:
        marks = line["marks"]
        median = marks["bad_calls"]["median"]
        cells = (
            f"{marks['recall']:.0%}",
            f"{marks['false_per_10k_days']:.2f}",
            "-" if median is None else f"{median:.0f}",
            "-" if marks["named_right"] is None else f"{marks['named_right']:.0%}",
            f"{marks['inside_outage']}",
        )
        rows.append((line["name"], *cells))
    head = ("", "faults found", "false alerts in 10,000 healthy days", "bad calls before", "right kind", "in outages")
    return [
        "Simulated telcos; every other detector is tuned to as many false alerts as Stayline has, where it can be.",
        "",
        *table(head, *rows),
        "",
        (
            "The last two are bounds, no detectors: sums of true log-likelihood ratios (CUSUM). One knows how often "
            "each customer's calls are spoiled with and without the fault, the other also of what sort each fault is "
            "and which hours, way or timer it hits, and looks for no other. Whoever has to learn all that finds fewer."
        ),
        *picture(f"{run.stem}-recall", "Faults found against false alerts"),
    ]


def _churn(run: Run, _: dict[str, str]) -> list[str]:
    rows = [
        (
            f"{line['model']} ({line['way']})",
            f"{line['score']['auc']:.3f}",
            f"{line['score']['log_loss']:.3f}",
            f"{line['score']['lift']:.2f}",
            f"{line['score']['calibration_error']:.3f}",
        )
        for line in run.of("churn")
    ]
    return table(("", "AUC", "log loss", "lift at 10 %", "calibration error"), *rows)


def _market(run: Run, _: dict[str, str]) -> list[str]:
    rows = [
        (
            f"{line['cases']:,} cases: {line['played']['policy']}",
            f"{line['played']['regret']:.0%}",
            f"{line['played']['late_regret']:.0%}",
            f"{line['played']['saved_minor_per_contact'] / 100:,.2f}",
        )
        for line in run.of("market")
    ]
    head = ("", "regret", "in the last quarter", "gain a contact")
    return [
        "Simulated markets in which the true uplift of each remedy is known, and who is better left alone.",
        "Regret is the share of the oracle's gain that was missed.",
        "",
        *table(head, *rows),
    ]


def _peers(run: Run, pictures: dict[str, str]) -> list[str]:
    lines = raced(run)
    by_time, by_processor = times(run), times(run, "cpu_s")
    rows, bars = [], {}
    for name in by_time:
        mine = [line for line in lines if line["name"] == name]
        ratios = by_time[name], by_processor[name]
        rate = statistics.median(line["events"] / line["seconds"] for line in mine)
        rows.append((PEERS[name].title, f"{rate:,.0f}", *(f"{ratio:.2f}" for ratio in ratios)))
        if not PEERS[name].whole:
            bars[PEERS[name].title] = {PEERS[name].title: rate}
    pictures[f"{run.stem}-rates"] = bar_chart("The small job, events a second", bars, unit="events/s")
    absent = sorted({PEERS[line["name"]].title for line in run.one("peers")["lines"] if "not_here" in line})
    return [
        "Each peer alone on one core, in turns, over the same events; all peers of the small job must find the same,",
        "bit for bit (`make peers` fetches those that need libraries of their own). The map on Bytewax does the whole",
        "job event by event, without churn, remedies, patterns and cases; its alerts are its own. Ratios are to our",
        "row of the same job.",
        "",
        *table(("", "events/s", "x ours", "x ours by processor"), *rows),
        *([] if not absent else ["", f"Not on this machine: {', '.join(absent)}."]),
        *picture(f"{run.stem}-rates", "Events a second by peer"),
    ]


SECTIONS: tuple[tuple[str, str, Callable[[Run, dict[str, str]], list[str]]], ...] = (
    ("Speed, memory, latency", "throughput-profile", _speed),
    ("From Kafka", "kafka", _kafka),
    ("State and restart", "stalls", _state),
    ("Delivery, desk, monitoring", "delivery-desk-metering", _delivery),
    ("Vendor formats", "formats", _formats),
    ("Detection", "detection", _detection),
    ("Who will leave", "churn", _churn),
    ("What helps", "market", _market),
    ("Beside other engines", "peers", _peers),
)
"""Title, stem of the files, what makes the section."""
