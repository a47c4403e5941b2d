"""The page of numbers, `docs/numbers.md`, made of the raw lines in `bench/results/` and of nothing else.

    python -m bench.numbers

Each section stands for one run of `stayline bench`; it names the command, the day, the conditions and the files.
"""

import math
import statistics
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from bench.harness import quantiles
from bench.peers.race import PEERS
from bench.plot import bar_chart

RESULTS = Path(__file__).parent / "results"
PAGE = RESULTS.parent.parent / "docs" / "numbers.md"

CALLS_PER_CUSTOMER_S, REPORTS_PER_CUSTOMER_S = 4_000 / 10e6, 60_000 / 10e6
"""Call records and media reports of a customer in the busy hour: a carrier of ten million with as many in all."""

CALL_BYTES, REPORT_BYTES = 489, 200
"""Of a call as the benches simulate it, and of a media report."""

REPLICAS, KEPT_DAYS = 3, 3
"""Of what Kafka holds."""

BUSY_RATIO = 0.5
"""So much of a core a process takes in the busy hour: a backlog of an hour is read within an hour."""

WIDTH = 120

SHORT = """\
- One core reads, judges and checkpoints {rate:,.0f} events a second of NDJSON. \
Reading the same bytes with `orjson.loads` and nothing else is {bare:.1f} times as fast.
- The same work as a map of Python objects on the same engine has {engine:.2f} of our rate. \
In a small job, one detector alone, Flink in Java has {flink:.2f} of it.
- At {offered}, 99 of 100 alerts are there {late_ms:.0f} ms after their call was due to be read; \
{webhooks:,.0f} signed webhooks a second go out.
- Of the simulated faults {ours[recall]:.0%} are found, \
with {ours[false_per_10k_days]:.2f} false alerts in 10,000 healthy customer-days; \
by the rule *three drops in seven days* {rule[recall]:.0%}, with {rule[false_per_10k_days]:.2f}.
"""
"""What the page comes to, also where others do better."""

BUSY_HOUR = """\
In the busy hour a million customers make {calls:,.0f} call records and {reports:,.0f} media reports a second \
(as many a customer as a carrier of ten million with 4,000 and 60,000), of {call_bytes} and {report_bytes} bytes. \
Brokers keep {replicas} replicas for {days} days, at a third of the busy hour's rate in the mean. \
The rest is from the figures above:
"""

SUBSCRIBERS = (1e6, 10e6, 100e6)

HEAD = """# The numbers

What Stayline does on one core of an ordinary machine, and what others do there with the same events. Every figure is
read from a file of raw lines by `python -m bench.numbers`; none is copied by hand. `make bench-all` runs all of it
anew, which takes about two hours, and writes files, pictures and this page. Rates vary from machine to machine and with
what else runs there; ratios within one run hardly do, so compare those.
"""

Line = Mapping[str, Any]


class Run(NamedTuple):
    """One run of the harness, as its raw lines have it.

    Attributes:
        stem: of its files.
        lines: without the one of the conditions.
        told: the one of the conditions.
    """

    stem: str
    lines: Sequence[Line]
    told: Line

    @classmethod
    def read(cls, folder: Path, stem: str) -> "Run | None":
        """Read a run; None if there is none."""
        path = folder / f"{stem}.jsonl"
        if not path.exists():
            return None
        told, *lines = (orjson.loads(line) for line in path.read_bytes().splitlines())
        return cls(stem, lines, told)

    def of(self, kind: str) -> list[Line]:
        """Return the lines of a kind."""
        return [line for line in self.lines if line["kind"] == kind]

    def one(self, kind: str) -> Line:
        """Return the only line of a kind, or the last of it."""
        return self.of(kind)[-1]

    def ratio(self, name: str, by: str = "per_second") -> float:
        """Return how many times as fast as the first of its race a work was: the median over the rounds."""
        base: Line = {}
        for line in self.of("rate"):
            rate = line["rate"]
            if rate["name"] == name:
                return _median(one / other for one, other in zip(rate[by], base[by], strict=True))
            if not rate["digest"]:
                base = rate
        raise KeyError(name)

    def rate(self, name: str) -> float:
        """Return the median rate of a work, events a second."""
        return _median(next(r["rate"] for r in self.of("rate") if r["rate"]["name"] == name)["per_second"])

    def head(self) -> list[str]:
        """Return what stands above its figures."""
        files = ", ".join(f"[{word}](../bench/results/{self.stem}.{end})" for word, end in _FILES)
        conditions = "; ".join(self.told["conditions"])
        return [f"`stayline bench {self.told['command']}`, {self.told['date']}: {files}. {conditions}.", ""]


_FILES = (("as printed", "txt"), ("raw lines", "jsonl"))


def page(folder: Path = RESULTS) -> tuple[str, dict[str, str]]:
    """Return the page, and the pictures that it needs and no run has drawn: name -> SVG."""
    parts, pictures = [HEAD, *_short(partial(Run.read, folder))], dict[str, str]()
    for title, stem, section in SECTIONS:
        run = Run.read(folder, stem)
        parts += [f"## {title}", ""]
        if run is None:
            parts += [f"Not measured yet: `stayline bench {stem.replace('-', ' ')}`.", ""]
            continue
        parts += [*run.head(), *section(run, pictures), ""]
    parts += _cost(Run.read(folder, "throughput-profile"), Run.read(folder, "stalls"))
    return "\n".join(parts).rstrip() + "\n", pictures


def _short(run: Callable[[str], Run | None]) -> list[str]:
    """Say in a few lines what the page comes to."""
    speed, board, sent, peers = (run(f) for f in ("throughput-profile", "detection", "delivery-desk-metering", "peers"))
    if speed is None or board is None or sent is None or peers is None:
        return []
    latency = speed.of("latency")[1]
    marks = {line["name"]: line["marks"] for line in board.one("detection")["rows"]}
    ratios = _ratios(peers)
    webhooks = sent.one("delivery")
    told = SHORT.format(
        rate=speed.rate("flow, checkpoints"),
        bare=1 / speed.ratio("flow, checkpoints"),
        engine=ratios["bytewax_whole"],
        flink=ratios["flink_extract"],
        offered=latency["name"],
        late_ms=quantiles(latency["told_ms"])[1],
        webhooks=webhooks["count"] / webhooks["sent_s"],
        ours=marks["Stayline"],
        rule=marks["three in seven"],
    )
    bullets = [line for text in told.splitlines() for line in textwrap.wrap(text, WIDTH, subsequent_indent="  ")]
    return ["## In short", "", *bullets, ""]


def _table(*rows: Sequence[str]) -> list[str]:
    head, *others = rows
    return [_row(head), _row(["---", *("--:" for _ in head[1:])]), *map(_row, others)]


def _median(values: Iterable[float]) -> float:
    return float(statistics.median(values))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _picture(name: str, words: str) -> list[str]:
    return ["", f"![{words}](../bench/results/{name}.svg)"]


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
        *_table(("one core", "events/s", "x orjson.loads"), *rows),
        "",
        f"- One broken record in a hundred: {broken['ratio']:.2f} of the rate.",
        f"- A further customer takes {each:,.0f} bytes, measured from the process.",
        f"- With {sizes[-1]['customers']:,} customers resident, calls are decoded and judged at",
        f"  {both[-1] / both[0]:.2f} of the rate with {sizes[0]['customers']:,}.",
        f"- {flood['strangers']:,} unknown customers in a minute: at most {peak_mb:,.0f} MB,",
        f"  {flood['flooded']['evicted']:,} evicted and counted.",
        "",
        *_table(
            ("from due to told, ms", "p50", "p99", "p99.9"),
            *((name, *(f"{value:,.0f}" for value in values)) for name, values in latencies),
        ),
        "",
        *_where_time_goes(run.one("profile")),
        *_picture(f"{run.stem}-parts", "Where the time of an event goes"),
        *_picture(f"{run.stem}-latency", "Latency by share of the notifications"),
        *_picture(f"{run.stem}-customers", "Rate by number of customers"),
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
        *_table(("", "events/s", "a second of cpu"), *rows),
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
    return ["Ten thousand calls a second, a checkpoint every five seconds.", "", *_table(head, *rows)]


def _delivery(run: Run, _: dict[str, str]) -> list[str]:
    sent, metering = run.one("delivery"), run.one("metering")
    desk = [(line["name"], f"{line['p50_ms']:.1f}", f"{line['p99_ms']:.1f}") for line in run.of("desk")]
    return [
        f"- Notifications of 4 kB made durable: {sent['count'] / sent['put_s']:,.0f}/s.",
        f"- Webhooks, signed, to a receiver on this machine: {sent['count'] / sent['sent_s']:,.0f}/s.",
        f"- Counting for Prometheus: {metering['meters_s'] / metering['flow_s']:.2%} of the flow's time;",
        f"  what was counted is collected in {1e3 * metering['scrape_s']:.1f} ms a scrape.",
        "",
        *_table((f"desk, {run.one('desk')['cases']:,} open cases, ms", "p50", "p99"), *desk),
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
        *_table(("format", "records/s"), *((name, f"{rate:,.0f}") for name, rate in rates.items())),
        *_picture(f"{run.stem}-rates", "Records a second by format"),
        "",
        "HEP3 over UDP, sender and listener on the same two cores:",
        "",
        *_table(("packets/s offered", "sent", "lost", "share"), *hep),
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
        *_table(head, *rows),
        *_picture(f"{run.stem}-recall", "Faults found against false alerts"),
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
    return _table(("", "AUC", "log loss", "lift at 10 %", "calibration error"), *rows)


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
        *_table(head, *rows),
    ]


def _peers(run: Run, pictures: dict[str, str]) -> list[str]:
    lines = _raced(run)
    by_time, by_processor = _ratios(run), _ratios(run, "cpu_s")
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
        *_table(("", "events/s", "x ours", "x ours by processor"), *rows),
        *([] if not absent else ["", f"Not on this machine: {', '.join(absent)}."]),
        *_picture(f"{run.stem}-rates", "Events a second by peer"),
    ]


def _raced(run: Run) -> list[Line]:
    return [line for line in run.one("peers")["lines"] if "not_here" not in line]


def _ratios(run: Run, time: str = "seconds") -> dict[str, float]:
    """Return of each peer how many times as fast as our row of its job it was."""
    lines = _raced(run)
    found = {}
    for name in dict.fromkeys(line["name"] for line in lines):
        bases = {line["round"]: line for line in lines if line["name"] == PEERS[name].against}
        found[name] = _times([line for line in lines if line["name"] == name], bases, time)
    return found


def _times(mine: Sequence[Line], bases: Mapping[int, Line], time: str) -> float:
    return _median(bases[line["round"]][time] / line[time] for line in mine)


def _cost(speed: Run | None, state: Run | None) -> list[str]:
    """Return what customers take: sums of figures above, in cores and bytes, as prices differ."""
    if speed is None or state is None:
        return []
    sizes = [line["residence"] for line in speed.of("customers")]
    each = (sizes[-1]["held_bytes"] - sizes[0]["held_bytes"]) / (sizes[-1]["customers"] - sizes[0]["customers"])
    largest = state.of("stalls")[-1]["stalls"]
    disk = largest["held_bytes"] / largest["customers"]
    rate = speed.rate("flow, checkpoints")

    def row(what: str, number: str, a_customer: float) -> list[str]:
        return [what, *(format(a_customer * count, number) for count in SUBSCRIBERS)]

    events_s = CALLS_PER_CUSTOMER_S + REPORTS_PER_CUSTOMER_S
    bytes_s = CALLS_PER_CUSTOMER_S * CALL_BYTES + REPORTS_PER_CUSTOMER_S * REPORT_BYTES
    processes = [f"{math.ceil(events_s * count / (rate * BUSY_RATIO)):,}" for count in SUBSCRIBERS]
    assumed = BUSY_HOUR.format(
        calls=1e6 * CALLS_PER_CUSTOMER_S,
        reports=1e6 * REPORTS_PER_CUSTOMER_S,
        call_bytes=CALL_BYTES,
        report_bytes=REPORT_BYTES,
        replicas=REPLICAS,
        days=KEPT_DAYS,
    )
    return [
        "## What a million customers cost",
        "",
        *textwrap.wrap(assumed, WIDTH),
        "",
        *_table(
            ["customers", *(f"{count / 1e6:,.0f} million" for count in SUBSCRIBERS)],
            row("cores, in the busy hour", ",.2f", events_s / rate),
            ["processes, each half busy then", *processes],
            row("memory of their state, GB", ",.1f", each / 1e9),
            row("checkpoints on disk, GB", ",.1f", disk / 1e9),
            row("network in, MB/s", ",.1f", bytes_s / 1e6),
            row("the topic on the brokers' disks, TB", ",.1f", REPLICAS * KEPT_DAYS * 86_400 * bytes_s / 3 / 1e12),
            row("a watcher, which reads the calls alone: cores", ",.3f", CALLS_PER_CUSTOMER_S / rate),
        ),
        "",
        "Multiply by your own price of a core, of memory and of disk. [Sizing](sizing.md) says what to add for bursts,",
        "the outbox and the spool, [scaling](scaling.md) what processes and a watcher are.",
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


def main() -> None:
    """Write the page and its pictures."""
    text, pictures = page()
    PAGE.write_text(text, encoding="utf-8")
    for name, picture in pictures.items():
        (RESULTS / f"{name}.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
