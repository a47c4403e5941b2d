"""The dispatcher brings everything to every output, once per id, whatever fails, and says so when it cannot."""

import asyncio
import random
import subprocess
import sys
import threading

import hypothesis.strategies as st
import pytest
from delivery_kit import (
    DOWN,
    FakeClock,
    MemoryCases,
    MemoryStream,
    again_in,
    delivered,
    dispatcher_of,
    notice,
    notices,
    run_out,
)
from hypothesis import given

from schemas.errors import ConfigError, StateError
from sinks.breaker import WAIT_MS, WAIT_MS_MAX, Breaker
from sinks.outbox import Outbox, OutboxFull
from sinks.outputs import Health, NotificationRefusedError, Outcome, State, Undeliverable

DEAD = Outcome(State.DEAD, Health.WELL, reason=Undeliverable.REJECTED, reply="422")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def outbox(tmp_path, clock):
    opened = Outbox.open(tmp_path / "outbox.db", {"crm": 1_000, "file": 1_000}, clock)
    yield opened
    opened.close()


def sent(output: MemoryCases) -> list[str]:
    return [identity for identity, _ in output.attempts]


def test_every_output_gets_everything_a_stream_in_order_and_cases_each_in_order(outbox, clock):
    put = notices(30, cases=4)
    outbox.put(put)
    file, crm = MemoryStream(), MemoryCases(delivered)
    run_out(dispatcher_of(outbox, clock, file, crm), clock)
    assert file.lines == [n.id for n in put]
    assert sorted(sent(crm)) == sorted(n.id for n in put)
    for case in range(4):
        of_case = [i for i in sent(crm) if i.startswith(f"case{case}-")]
        assert of_case == [n.id for n in put if n.case == f"case{case}"]
    assert crm.in_flight_max == 4


def test_attempts_in_flight_never_exceed_the_outputs_concurrency(outbox, clock):
    outbox.put(notices(30, cases=30))
    crm = MemoryCases(delivered, concurrency=3)
    run_out(dispatcher_of(outbox, clock, MemoryStream(), crm), clock)
    assert (len(crm.attempts), crm.in_flight_max) == (30, 3)


def test_a_failing_case_holds_up_its_own_later_revisions_and_no_other_case(outbox, clock):
    outbox.put(notices(9, cases=3))
    start_ms = clock()

    def decide(delivery, now_ms):
        failing = delivery.notification.id == "case1-1" and delivery.attempts < 5
        return (again_in(1_000) if failing else delivered)(delivery, now_ms)

    crm = MemoryCases(decide)
    run_out(dispatcher_of(outbox, clock, MemoryStream(), crm), clock)
    at = {identity: now_ms - start_ms for identity, now_ms in crm.attempts}
    assert {at[f"case{c}-{r}"] for c in (0, 2) for r in (1, 2, 3)} == {0}
    assert [at[f"case1-{r}"] for r in (1, 2, 3)] == [5_000, 5_000, 5_000]


def test_an_output_that_wants_only_the_newest_gets_it_and_the_others_count_as_superseded(outbox, clock):
    crm = MemoryCases(again_in(1_000), newest_only=True)
    outbox.put(notices(4, cases=1))
    dispatcher = dispatcher_of(outbox, clock, MemoryStream(), crm)
    dispatcher.deliver_due()
    assert sent(crm) == ["case0-4"]
    outbox.put([notice("case0", 5)])
    crm.decide = delivered
    run_out(dispatcher, clock)
    assert sent(crm) == ["case0-4", "case0-5"]
    crm_stats = outbox.stats().outputs["crm"]
    assert (crm_stats.delivered, crm_stats.superseded, crm_stats.pending) == (1, 4, 0)


def test_a_rejected_delivery_moves_nothing_else_on(outbox, clock):
    outbox.put(notices(6, cases=6))
    file = MemoryStream()
    file.failures = [DOWN]
    crm = MemoryCases(lambda d, now: DEAD if d.seq == 3 else delivered(d, now))
    dispatcher = dispatcher_of(outbox, clock, file, crm)
    dispatcher.deliver_due()
    assert outbox.queue("file").standing()[0] == 0
    shown = outbox.stats().outputs
    assert (shown["file"].pending, shown["file"].delivered, shown["file"].trouble) == (6, 0, "down")
    assert (shown["crm"].delivered, shown["crm"].dead) == (5, 1)
    run_out(dispatcher, clock)
    assert file.lines == [n.id for n in notices(6, cases=6)]


def test_a_notification_that_an_output_cannot_carry_dies_alone_and_a_restart_goes_on(outbox, clock):
    outbox.put(notices(5))

    class Fussy(MemoryStream):
        def append(self, position, notifications):
            for index, notification in enumerate(notifications):
                if notification.id == "case1-1":
                    raise NotificationRefusedError(index, "no")
            return super().append(position, notifications)

    file = Fussy()
    for _ in range(2):
        run_out(dispatcher_of(outbox, clock, file, MemoryCases(delivered)), clock)
    assert file.lines == ["case0-1", "case2-1", "case0-2", "case1-2"]
    assert [(d.output, d.id, d.reason) for d in outbox.undelivered.list()] == [
        ("file", "case1-1", Undeliverable.MALFORMED)
    ]


def test_every_end_is_counted_and_the_counts_add_up(outbox, clock):
    outbox.put(notices(40, cases=8))
    outcomes = random.Random(3)  # noqa: S311  seeded, not secret

    def decide(delivery, now_ms):
        return outcomes.choice([DEAD, delivered(delivery, now_ms), again_in(10)(delivery, now_ms)])

    run_out(dispatcher_of(outbox, clock, MemoryStream(), MemoryCases(decide)), clock)
    dead = [d.id for d in outbox.undelivered.list("crm")]
    outbox.undelivered.discard("crm", dead[:3])
    crm = outbox.stats().outputs["crm"]
    assert crm.pending == 0
    assert (crm.dead, crm.discarded) == (len(dead) - 3, 3)
    assert crm.delivered + crm.dead + crm.discarded + crm.superseded == 40


def test_a_row_erased_while_its_attempt_runs_is_counted_once_and_waiting_ends(outbox, clock):
    outbox.put(notices(2, cases=2))

    def decide(delivery, now_ms):
        outbox.forget("k1")
        return delivered(delivery, now_ms)

    run_out(dispatcher_of(outbox, clock, MemoryStream(), MemoryCases(decide)), clock)
    crm = outbox.stats().outputs["crm"]
    assert (crm.pending, crm.delivered, crm.discarded) == (0, 0, 2)
    assert outbox.wait_for_room(0.0)


def test_a_breaker_opens_after_ten_failures_and_lets_one_probe_through_at_a_time(outbox, clock):
    outbox.put(notices(100, cases=100))
    crm = MemoryCases(again_in(500), concurrency=2)
    dispatcher = dispatcher_of(outbox, clock, MemoryStream(), crm)
    dispatcher.deliver_due()
    assert len(crm.attempts) == 10
    assert outbox.stats().outputs["crm"].breaker == "open"
    for probes in range(1, 9):
        next_ms = dispatcher.deliver_due()
        assert len(crm.attempts) == 10 + probes - 1, "nothing passes before its time"
        assert next_ms - clock() <= WAIT_MS_MAX
        clock.now_ms = next_ms
        dispatcher.deliver_due()
        assert len(crm.attempts) == 10 + probes
    crm.decide = delivered
    run_out(dispatcher, clock)
    shown = outbox.stats().outputs["crm"]
    assert (shown.breaker, shown.delivered, shown.trouble) == ("closed", 100, "")


def test_attempts_begun_before_a_breaker_opened_do_not_lengthen_its_wait(outbox, clock):
    outbox.put(notices(100, cases=100))
    crm = MemoryCases(again_in(500), concurrency=100)
    next_ms = dispatcher_of(outbox, clock, MemoryStream(), crm).deliver_due()
    assert len(crm.attempts) == 100
    assert next_ms - clock() <= WAIT_MS
    assert outbox.queue("crm").standing()[1].failures == 10


def test_a_breaker_survives_a_restart(tmp_path, clock):
    path, crm = tmp_path / "o.db", MemoryCases(again_in(500))
    outbox = Outbox.open(path, {"crm": 100}, clock)
    outbox.put(notices(30, cases=30))
    dispatcher_of(outbox, clock, crm).deliver_due()
    failed = len(crm.attempts)
    outbox.close()
    outbox = Outbox.open(path, {"crm": 100}, clock)
    dispatcher_of(outbox, clock, crm).deliver_due()
    assert len(crm.attempts) == failed


def test_a_receiver_that_is_gone_gets_nothing_until_an_operator_enables_it_and_nothing_is_lost(outbox, clock):
    outbox.put(notices(3, cases=1))
    crm = MemoryCases(lambda _, now: Outcome(State.PENDING, Health.GONE, retry_ms=now, reply="410"))
    dispatcher = dispatcher_of(outbox, clock, MemoryStream(), crm)
    run_out(dispatcher, clock)
    clock.now_ms += 86_400_000
    run_out(dispatcher, clock)
    shown = outbox.stats().outputs["crm"]
    assert (sent(crm), shown.breaker, shown.pending, shown.trouble) == (["case0-1"], "disabled", 3, "410")
    crm.decide = delivered
    outbox.enable("crm")
    run_out(dispatcher, clock)
    assert sent(crm) == ["case0-1", "case0-1", "case0-2", "case0-3"]


def heard(outbox):
    """Return a list that grows by all that the outbox tells of its outputs."""
    told = []
    outbox.on_happened = lambda event, output, known: told.append((event, output, known))
    return told


def test_a_receiver_that_fails_is_told_of_when_it_begins_when_it_is_left_alone_and_when_it_takes_again(outbox, clock):
    told = heard(outbox)
    outbox.put(notices(20, cases=20))
    crm = MemoryCases(
        lambda _, now: Outcome(State.PENDING, Health.FAILING, retry_ms=now, reply="503 of a customer"), concurrency=1
    )
    dispatcher = dispatcher_of(outbox, clock, MemoryStream(), crm)
    for _ in range(5):
        clock.now_ms = dispatcher.deliver_due()
    failed = [("output.failing", "crm", {"answer": "503"}), ("output.paused", "crm", {"answer": "503"})]
    assert told == failed
    crm.decide = delivered
    run_out(dispatcher, clock)
    assert told == [*failed, ("output.resumed", "crm", {})]


def test_a_receiver_that_is_gone_and_a_delivery_given_up_are_told_of_without_what_was_answered(outbox, clock):
    told = heard(outbox)
    outbox.put(notices(2, cases=2))
    ends = [
        Outcome(State.DEAD, Health.WELL, reason=Undeliverable.REJECTED, reply="422 of a customer"),
        Outcome(State.PENDING, Health.GONE, retry_ms=clock(), reply="410 for a customer"),
    ]
    crm = MemoryCases(lambda _d, _n: ends.pop(0), concurrency=1)
    stream = MemoryStream()
    stream.failures = [NotificationRefusedError(0, "body must be one line")]
    run_out(dispatcher_of(outbox, clock, stream, crm), clock)
    assert [one for one in told if one[1] == "crm"] == [
        ("delivery.given_up", "crm", {"id": "crm/case0-1", "reason": "rejected", "answer": "422"}),
        ("output.failing", "crm", {"answer": "422"}),
        ("output.disabled", "crm", {"answer": "410"}),
    ]
    malformed = {"id": "file/case0-1", "reason": "malformed", "answer": "body must be one line"}
    assert ("delivery.given_up", "file", malformed) in told


@pytest.mark.parametrize("stops", [False, True])
def test_a_clock_that_is_put_back_holds_up_nothing(tmp_path, clock, stops):
    right_ms, day_ms = clock.now_ms, 86_400_000
    crm, file = MemoryCases(again_in(5_000)), MemoryStream()
    outbox = Outbox.open(tmp_path / "o.db", {"crm": 100, "file": 100}, clock)
    dispatcher = dispatcher_of(outbox, clock, crm, file)
    clock.now_ms += day_ms
    outbox.put(notices(30, cases=15))
    file.failures = [DOWN]
    dispatcher.deliver_due()
    assert {one.breaker for one in outbox.stats().outputs.values()} == {"open"}
    clock.now_ms = right_ms
    crm.decide = delivered
    if stops:
        dispatcher = dispatcher_of(outbox, clock, crm, file)
    run_out(dispatcher, clock)
    assert clock.now_ms < right_ms + 120_000
    assert {one.delivered for one in outbox.stats().outputs.values()} == {30}
    outbox.close()


def test_when_a_receiver_was_put_right_an_operator_need_not_wait_for_the_schedule(outbox, clock):
    outbox.put(notices(4, cases=2))
    crm = MemoryCases(again_in(14_400_000))
    dispatcher = dispatcher_of(outbox, clock, MemoryStream(), crm)
    dispatcher.deliver_due()
    crm.decide = delivered
    dispatcher.deliver_due()
    assert len(crm.attempts) == 2
    outbox.enable("crm")
    dispatcher.deliver_due()
    assert outbox.stats().outputs["crm"].delivered == 4


@given(
    st.lists(st.tuples(st.sampled_from(list(Health)), st.integers(0, 100_000), st.integers(0, 200_000))),
    st.integers(1, 5),
)
def test_a_breaker_lets_all_pass_after_a_success_and_is_never_shut_for_ever_by_failures(history, failures_max):
    breaker, now_ms, row = Breaker(), 0, 0
    for health, wait_ms, hold_ms in history:
        now_ms += wait_ms
        outcome = Outcome(State.PENDING, health, hold_ms=now_ms + hold_ms)
        was_gone = breaker.state == "disabled"
        breaker = breaker.after(outcome, now_ms, failures_max, random.Random(1))  # noqa: S311  seeded
        row = row + 1 if health is Health.FAILING else 0
        assert (breaker.state == "disabled") == (was_gone or health is Health.GONE)
        if breaker.state == "disabled":
            assert breaker.room(now_ms + 10**9, 5) == 0
        elif health is Health.WELL:
            assert breaker.room(now_ms, 5) == 5
        else:
            assert breaker.room(now_ms + max(WAIT_MS_MAX, 200_000), 5) >= 1
            assert row < failures_max or breaker.room(now_ms, 5) <= 1


def test_a_started_dispatcher_is_woken_by_put_drains_and_stops(outbox, clock):
    file, crm = MemoryStream(), MemoryCases(delivered)
    dispatcher = dispatcher_of(outbox, clock, file, crm)
    dispatcher.start()
    for n in range(5):
        outbox.put([notice("a", n + 1)])
        assert dispatcher.drain(30.0)
        assert len(file.lines) == n + 1
    dispatcher.stop()
    outbox.put([notice("a", 9)])
    assert not dispatcher.drain(0.0)
    assert len(crm.attempts) == 5


def test_many_threads_may_put_and_look_while_deliveries_run(outbox, clock):
    file, crm = MemoryStream(), MemoryCases(delivered)
    dispatcher = dispatcher_of(outbox, clock, file, crm)
    dispatcher.start()

    def put(thread: int) -> None:
        for n in range(40):
            outbox.put([notice(f"t{thread}", n + 1), notice("shared", n + 1)])
            assert outbox.stats().conflicts == 0

    threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dispatcher.drain(30.0)
    dispatcher.stop()
    for case in ("t0", "t1", "t2", "t3", "shared"):
        expected = [f"{case}-{n + 1}" for n in range(40)]
        assert [line for line in file.lines if line.startswith(f"{case}-")] == expected
        assert [identity for identity in sent(crm) if identity.startswith(f"{case}-")] == expected


def test_a_slow_output_holds_up_no_other(outbox, clock):
    outbox.put(notices(3))
    release = threading.Event()

    class Slow(MemoryStream):
        def append(self, position, notifications):
            assert release.wait(30)
            return super().append(position, notifications)

    crm = MemoryCases(delivered)
    dispatcher = dispatcher_of(outbox, clock, Slow(), crm)
    dispatcher.start()
    assert outbox.wait_until(lambda: outbox.pending("crm") == 0, 30.0)
    assert outbox.pending("file") == 3
    release.set()
    assert dispatcher.drain(30.0)
    dispatcher.stop()


def test_detection_waits_for_a_full_backlog_and_for_nothing_else(tmp_path, clock):
    outbox = Outbox.open(tmp_path / "o.db", {"crm": 5}, clock)
    crm = MemoryCases(again_in(1_000))
    dispatcher = dispatcher_of(outbox, clock, crm)
    for n in range(5):
        outbox.put([notice("a", n + 1)])
        dispatcher.deliver_due()
    with pytest.raises(OutboxFull):
        outbox.put([notice("a", 6)])
    crm.decide = delivered
    run_out(dispatcher, clock)
    assert outbox.wait_for_room(0.0)
    outbox.put([notice("a", 6)])
    run_out(dispatcher, clock)
    assert sent(crm)[-6:] == [f"a-{n}" for n in range(1, 7)]


def test_what_is_broken_off_stays_pending_and_is_sent_again(outbox, clock):
    outbox.put([notice("a", 1)])
    entered = threading.Event()

    class Hanging(MemoryCases):
        async def attempt(self, delivery, clock, rng):
            await super().attempt(delivery, clock, rng)
            entered.set()
            await self.never.wait()

    crm = Hanging(delivered)
    crm.never = asyncio.Event()
    dispatcher = dispatcher_of(outbox, clock, crm)
    dispatcher.start()
    assert entered.wait(30)
    dispatcher.stop(grace_s=0.0)
    assert outbox.pending("crm") == 1
    again = MemoryCases(delivered)
    run_out(dispatcher_of(outbox, clock, again), clock)
    assert sent(again) == sent(crm) == ["a-1"]


def test_a_fault_of_the_thread_reaches_whoever_asks(outbox, clock):
    def broken(_delivery, _now_ms):
        raise ZeroDivisionError("a fault of ours")

    dispatcher = dispatcher_of(outbox, clock, MemoryStream(), MemoryCases(broken))
    dispatcher.start()
    dispatcher.raise_if_failed()
    outbox.put([notice("a", 1)])
    for ask in (lambda: dispatcher.drain(30.0), dispatcher.raise_if_failed, dispatcher.stop):
        with pytest.raises(ZeroDivisionError, match="a fault of ours"):
            ask()
    assert outbox.pending("crm") == 1


HOLD = """
import pathlib, sys
from sinks.layout import held_alone
with held_alone(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_never_dispatch_one_outbox(outbox, clock):
    lock = f"{outbox.path}-dispatcher"
    with subprocess.Popen([sys.executable, "-c", HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(StateError, match="one process may hold it, another one does"):
            dispatcher_of(outbox, clock, MemoryStream()).start()
        other.stdin.close()
        other.wait(30)
    dispatcher_of(outbox, clock, MemoryStream()).deliver_due()


def test_outputs_of_one_name_are_refused(outbox, clock):
    with pytest.raises(ConfigError, match="output names must differ"):
        dispatcher_of(outbox, clock, MemoryStream("crm"), MemoryCases(delivered))


def test_what_every_output_is_done_with_is_pruned_after_its_time(outbox, clock):
    outbox.put(notices(4))
    dispatcher = dispatcher_of(outbox, clock, MemoryStream(), MemoryCases(delivered))
    run_out(dispatcher, clock)
    before = outbox.prune(clock.now_ms - 7 * 86_400_000)
    clock.now_ms += 7 * 86_400_000 + 1
    run_out(dispatcher, clock)
    assert (before, outbox.prune(clock.now_ms)) == (0, 0)
    assert outbox.put(notices(4)) == 0
