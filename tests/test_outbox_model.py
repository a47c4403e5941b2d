"""The outbox against a model of plain dicts, over random histories with crashes in between."""

import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import hypothesis.strategies as st
from delivery_kit import FakeClock, notice
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sinks.breaker import Breaker
from sinks.outbox import Outbox, OutboxFull
from sinks.outputs import Health, Outcome, State, Undeliverable
from sinks.queues import Ended
from sinks.treatment import Aside

BACKLOGS = {"crm": 12, "file": 9}
CASES = st.sampled_from(["a", "b", "c"])
CUSTOMER = {"a": "k1", "b": "k2", "c": "k1"}


@dataclass
class Row:
    """The model of one delivery. `due_ms` is None behind another one of its case."""

    id: str
    case: str
    put_ms: int
    state: str = "pending"
    attempts: int = 0
    due_ms: int | None = None
    held: bool = False


class Model(RuleBasedStateMachine):
    """Each rule does the same to the outbox and to the model; the invariants compare all that can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.clock = FakeClock(1_000)
        self.outbox = Outbox.open(self.directory / "0.db", BACKLOGS, self.clock)
        self.lives = 0
        self.bodies: dict[str, bytes] = {}
        self.conflicts: set[tuple[str, bytes]] = set()
        self.rows: dict[str, list[Row]] = {name: [] for name in BACKLOGS}
        self.ends: dict[str, Counter[str]] = {name: Counter() for name in BACKLOGS}

    def teardown(self) -> None:
        self.outbox.close()
        shutil.rmtree(self.directory)

    def pending(self, output: str, case: str | None = None) -> list[Row]:
        rows = (row for row in self.rows[output] if row.state == "pending")
        return [row for row in rows if case is None or row.case == case]

    def promote(self, output: str, case: str) -> None:
        waiting = self.pending(output, case)
        if waiting and all(row.due_ms is None for row in waiting):
            waiting[0].due_ms = self.clock()

    def end(self, output: str, row: Row, state: str) -> None:
        row.state, row.due_ms = state, None
        self.ends[output][state] += 1
        self.promote(output, row.case)

    @rule(batch=st.lists(st.tuples(CASES, st.integers(1, 6), st.sampled_from(["x", "y"])), max_size=6))
    def put(self, batch: list[tuple[str, int, str]]) -> None:
        sent = [notice(case, revision, text, CUSTOMER[case]) for case, revision, text in batch]
        full = any(len(self.pending(name)) >= most for name, most in BACKLOGS.items())
        try:
            fresh = self.outbox.put(sent)
        except OutboxFull:
            assert full
            return
        assert not full or not sent
        known = len(self.bodies)
        for one in sent:
            if self.bodies.setdefault(one.id, one.body) is not one.body and self.bodies[one.id] != one.body:
                self.conflicts.add((one.id, one.body))
        assert fresh == len(self.bodies) - known
        for identity in list(self.bodies)[known:]:
            for name in BACKLOGS:
                case = identity.split("-")[0]
                self.rows[name].append(Row(identity, case, self.clock()))
                self.promote(name, case)

    @rule(wait_ms=st.sampled_from([1, 10, 1_000]))
    def pass_time(self, wait_ms: int) -> None:
        self.clock.now_ms += wait_ms

    @rule(count=st.integers(1, 4), position=st.integers(0, 99))
    def stream(self, count: int, position: int) -> None:
        queue = self.outbox.queue("file")
        taken = queue.head(count)
        expected = self.pending("file")[:count]
        assert [d.notification.id for d in taken] == [row.id for row in expected]
        queue.commit(taken, position, self.clock())
        for row in expected:
            self.end("file", row, "delivered")
        assert queue.standing() == (position, Breaker())

    @rule(limit=st.integers(1, 3), busy=st.sets(CASES, max_size=2), wait_ms=st.sampled_from([0, 5, 500]))
    def attempt(self, limit: int, busy: set[str], wait_ms: int) -> None:
        queue = self.outbox.queue("crm")
        due = queue.due(self.clock(), limit, busy)
        open_rows = [r for r in self.pending("crm") if r.due_ms is not None and r.due_ms <= self.clock()]
        expected = [r for r in sorted(open_rows, key=lambda r: r.due_ms or 0) if r.case not in busy][:limit]
        assert [(d.notification.id, d.attempts) for d in due] == [(r.id, r.attempts) for r in expected]
        ended = []
        for nth, (delivery, row) in enumerate(zip(due, expected, strict=True)):
            outcome = self.outcome(nth, wait_ms)
            ended.append(Ended(delivery, outcome, self.clock()))
            row.attempts += 1
            if outcome.state == State.PENDING:
                row.due_ms, row.held = outcome.retry_ms, False
            else:
                self.end("crm", row, outcome.state)
        queue.settle(ended, self.clock(), Breaker("closed", failures=wait_ms))
        assert queue.standing()[1].failures == wait_ms

    def outcome(self, nth: int, wait_ms: int) -> Outcome:
        if wait_ms == 0:
            return Outcome(State.DELIVERED, Health.WELL)
        if nth == 0:
            return Outcome(State.PENDING, Health.FAILING, retry_ms=self.clock() + wait_ms)
        return Outcome(State.DEAD, Health.WELL, reason=Undeliverable.REJECTED)

    @rule(output=st.sampled_from([*BACKLOGS]), takes=st.lists(st.sampled_from(["hold", "skip", "dead"]), max_size=3))
    def put_aside(self, output: str, takes: list[str]) -> None:
        """What is due is routed: held for 50 ms, skipped, or found to be without a shape."""
        queue = self.outbox.queue(output)
        due = queue.due(self.clock(), len(takes), set())
        rows = {row.id: row for row in self.pending(output)}
        asides = {
            "hold": Aside(State.PENDING, self.clock() + 50, "quiet_hours"),
            "skip": Aside(State.SKIPPED, detail="not wanted"),
            "dead": Aside(State.DEAD, reason=Undeliverable.MALFORMED, detail="no shape"),
        }
        queue.put_aside([(d, asides[take]) for d, take in zip(due, takes, strict=False)], self.clock())
        for delivery, take in zip(due, takes, strict=False):
            row = rows[delivery.notification.id]
            if take == "hold":
                row.due_ms, row.held = self.clock() + 50, True
            else:
                row.attempts += take == "dead"
                self.end(output, row, {"skip": "skipped"}.get(take, take))

    @rule(output=st.sampled_from([*BACKLOGS]))
    def release(self, output: str) -> None:
        self.outbox.queue(output).release(self.clock())
        for row in self.pending(output):
            if row.held:
                row.due_ms, row.held = self.clock(), False

    @rule(take=st.integers(1, 2), replayed=st.booleans())
    def operate(self, take: int, replayed: bool) -> None:
        dead = [row for row in self.rows["crm"] if row.state == "dead"][:take]
        chosen = [row.id for row in dead]
        if replayed:
            assert self.outbox.undelivered.replay("crm", chosen, self.clock()) == len(dead)
        else:
            assert self.outbox.undelivered.discard("crm", chosen) == len(dead)
        for row in dead:
            row.state, row.attempts = ("pending", 0) if replayed else ("discarded", row.attempts)
            self.ends["crm"].subtract(["dead"])
            self.ends["crm"].update([] if replayed else ["discarded"])
            self.promote("crm", row.case)

    @rule(customer=st.sampled_from(["k1", "k2"]))
    def forget(self, customer: str) -> None:
        self.outbox.forget(customer)
        for name, rows in self.rows.items():
            for row in [row for row in rows if CUSTOMER[row.case] == customer]:
                if row.state in {"pending", "dead"}:
                    self.ends[name].subtract(["dead"] if row.state == "dead" else [])
                    self.ends[name].update(["discarded"])
                rows.remove(row)
        self.conflicts = {(i, body) for i, body in self.conflicts if CUSTOMER[i.split("-")[0]] != customer}

    @rule(age_ms=st.sampled_from([0, 10]))
    def prune(self, age_ms: int) -> None:
        before_ms = self.clock() - age_ms
        self.outbox.prune(before_ms)
        kept = {row.id for rows in self.rows.values() for row in rows if row.state in {"pending", "dead"}}
        for name, rows in self.rows.items():
            self.rows[name] = [row for row in rows if row.id in kept or row.put_ms >= before_ms]

    @precondition(lambda self: self.bodies)
    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        if clean:
            self.outbox.close()
        self.lives += 1
        image = self.directory / f"{self.lives}.db"
        for suffix in ("", "-wal"):
            source = Path(f"{self.outbox.path}{suffix}")
            if source.exists():
                shutil.copy(source, f"{image}{suffix}")
        self.outbox.close()
        self.outbox = Outbox.open(image, BACKLOGS, self.clock)

    @invariant()
    def counts_agree(self) -> None:
        stats = self.outbox.stats()
        assert (stats.notifications, stats.conflicts) == (len(self.bodies), len(self.conflicts))
        for name, shown in stats.outputs.items():
            waiting = self.pending(name)
            ends = self.ends[name]
            assert shown.pending == len(waiting)
            assert (shown.delivered, shown.dead, shown.discarded) == (
                ends["delivered"], ends["dead"], ends["discarded"],
            )  # fmt: skip
            assert shown.skipped == ends["skipped"]
            assert shown.held == ({"quiet_hours": held} if (held := sum(row.held for row in waiting)) else {})
            ended = shown.delivered + shown.dead + shown.discarded + shown.skipped
            assert shown.pending + ended == len(self.bodies)
            assert shown.oldest_age_ms == (self.clock() - waiting[0].put_ms if waiting else None)

    @invariant()
    def rows_agree(self) -> None:
        assert set(self.outbox.conflicts()) == self.conflicts
        for name in BACKLOGS:
            head = self.outbox.queue(name).head(1_000)
            assert [(d.notification.id, d.attempts) for d in head] == [
                (row.id, row.attempts) for row in self.pending(name)
            ]
            assert all(d.notification.body == self.bodies[d.notification.id] for d in head)
            dead = [(d.id, d.attempts) for d in self.outbox.undelivered.list(name)]
            assert dead == [(row.id, row.attempts) for row in self.rows[name] if row.state == "dead"]


Model.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
test_every_history_agrees_with_the_model = Model.TestCase
