"""The simulated telco: lawful records, honest truth, trouble that looks like what it is."""

import itertools
from collections import Counter, defaultdict
from dataclasses import replace

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.simulator import TelcoSpec, simulate
from bench.simulator.arrivals import Counts, travel
from bench.simulator.columns import NEVER_MS, height, join, mix, take
from bench.simulator.endings import HARD, Q850, RELEASED_BY, SIP_STATUS
from bench.simulator.faults import draw_fault
from bench.simulator.live import CAST, EVENING, EVENING_MS, cast_evening, story
from bench.simulator.media import mos_of
from bench.simulator.run import draw_telco, found
from bench.simulator.schedule import PATTERNS, Outage, ProbeFault, make_schedule
from bench.simulator.spec import DAY_MS, HOUR_MS
from bench.simulator.traffic import _lay_on_lines, day_windows, hourly_shares
from bench.simulator.truth import Ledger
from bench.simulator.window import Exchange
from bench.simulator.world import CODECS, build_world
from schemas.errors import ConfigError
from schemas.events import Event

SPEC = TelcoSpec(customers=400, days=5, seed=3, late_ratio=0.01, duplicate_ratio=0.02, broken_ratio=0.01)
WISHES = ((0, 3), (0, 5_000_000), (1, 900_000), (0, 120_000))
"""Line, start, length and gap before it, of a call that somebody wishes to make."""
HEALTHY = TelcoSpec(customers=1_500, days=4, seed=5, faulty_ratio=0.0, outage_scale=0.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return simulate(SPEC, tmp_path_factory.mktemp("telco"))


@pytest.fixture(scope="module")
def events(run):
    """Every readable event, in the order of the file."""
    decoder, read = msgspec.json.Decoder(Event), []
    for line in run.events_path.read_bytes().splitlines():
        try:
            event = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if kind(event) != "call" or event.start_ms <= (event.answer_ms or event.start_ms) <= event.end_ms:
            read.append(event)
    return read


@pytest.fixture(scope="module")
def truth(run):
    return [orjson.loads(line) for line in run.truth_path.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def healthy_calls():
    return run_all(draw_telco(HEALTHY))


def kind(event):
    return event.__struct_config__.tag


def of(truth, name):
    return [record for record in truth if record["type"] == name]


def run_all(telco, step_ms=DAY_MS):
    exchange = Exchange(telco.world, telco.schedule)
    spec = telco.world.spec
    return join([exchange.run(window) for window in day_windows(spec.start_ms, spec.end_ms, step_ms)])


def with_faults(pattern, spec=None):
    """Give thirty busy customers a fault of one pattern from the second day on; return its spoiled calls too."""
    spec = spec or TelcoSpec(customers=60, days=12, seed=9, faulty_ratio=0.0, outage_scale=0.0)
    world = build_world(spec)
    busy = replace(world.customers, calls_per_day=np.full(spec.customers, 12.0))
    world = replace(world, customers=busy)
    rng = np.random.default_rng(1)
    period = (spec.start_ms + DAY_MS, spec.end_ms)
    faults = [draw_fault(world, customer, pattern, period, rng) for customer in range(30)]
    telco = found(world, make_schedule(faults, [], [], np.full(spec.customers, NEVER_MS)))
    calls = run_all(telco)
    return telco, calls, take(calls, calls["fault"] >= 0)


def talk_ms(calls):
    return calls["end_ms"] - calls["answer_ms"]


# The files


def test_the_same_spec_gives_the_same_bytes(run, tmp_path):
    again = simulate(SPEC, tmp_path)
    assert again.events_path.read_bytes() == run.events_path.read_bytes()
    assert again.truth_path.read_bytes() == run.truth_path.read_bytes()


def test_another_seed_gives_other_bytes(run, tmp_path):
    other = simulate(replace(SPEC, seed=4), tmp_path)
    assert other.events_path.read_bytes() != run.events_path.read_bytes()


def test_nothing_is_left_of_a_run_that_fails(tmp_path):
    def fail(done, _days):
        raise RuntimeError(str(done))

    with pytest.raises(RuntimeError, match="1"):
        simulate(replace(SPEC, customers=20), tmp_path, fail)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_the_days(tmp_path):
    seen = []
    simulate(TelcoSpec(customers=10, days=3), tmp_path, lambda done, days: seen.append((done, days)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_spec_lists_every_problem():
    with pytest.raises(ConfigError) as caught:
        TelcoSpec(customers=0, days=0, drop_ratio=2.0, start_ms=1)
    assert [problem.split()[0] for problem in caught.value.problems] == [
        "customers",
        "days",
        "drop_ratio",
        "start_ms",
    ]


@pytest.mark.parametrize("customers", [1, 2, 7])
def test_a_tiny_telco_works_too(customers, tmp_path):
    summary = simulate(TelcoSpec(customers=customers, days=1, faulty_ratio=1.0), tmp_path)
    assert summary.faults == customers


def test_every_line_is_a_lawful_event_or_counted_as_broken(run, events):
    lines = run.events_path.read_bytes().splitlines()
    assert len(lines) == run.events
    assert run.broken > 0
    assert len(lines) - len(events) == run.broken


def test_every_type_of_event_but_those_of_others_occurs(events):
    assert {kind(event) for event in events} == {"call", "media", "link", "profile", "contact", "usage", "churn"}


def test_the_truth_counts_what_the_file_holds(run, events, truth):
    ids = Counter(event.call_id for event in events if kind(event) == "call")
    head = truth[0]
    assert head["type"] == "telco"
    assert head["calls"] == run.calls == len(ids)
    assert head["duplicates"] == sum(ids.values()) - len(ids) > 0
    assert head["events"] == run.events
    assert run.event_bytes == run.events_path.stat().st_size


def test_a_duplicate_is_another_probes_view_of_the_same_call(events):
    views = defaultdict(list)
    for event in events:
        if kind(event) == "call":
            views[event.call_id].append(event)
    pairs = [pair for pair in views.values() if len(pair) == 2]
    assert pairs
    for one, two in pairs:
        assert one.probe_id != two.probe_id
        assert one.start_ms == two.start_ms
        assert abs(one.end_ms - two.end_ms) <= 2_000


def test_records_arrive_nearly_in_order_of_their_ends(events):
    ends = np.array([event.end_ms for event in events if kind(event) == "call"])
    behind_ms = np.maximum.accumulate(ends) - ends
    assert (behind_ms > 0).any()
    assert 0 < (behind_ms > 300_000).mean() < 3 * SPEC.late_ratio
    assert (behind_ms > 62_000).mean() < 3 * SPEC.late_ratio


def test_late_records_are_counted_by_their_lateness():
    telco, counts = draw_telco(replace(SPEC, customers=200)), Counts()
    whole = travel(telco.world.spec, run_all(telco), counts, np.random.default_rng(2))
    sound = whole["broken"] < 0
    lateness_ms = whole["arrival_ms"][sound] - whole["end_ms"][sound]
    assert counts.late == (lateness_ms > 300_000).sum() > 0
    assert lateness_ms.min() >= 0
    assert counts.broken == (~sound).sum()


def test_every_spoiled_call_is_in_the_file_under_its_customer(events, truth):
    views = defaultdict(set)
    for event in events:
        if kind(event) == "call":
            views[event.call_id].add((event.customer_id, event.end_ms))
    faults = of(truth, "fault")
    assert sum(len(fault["bad_call_ids"]) for fault in faults) > 20
    for fault in faults:
        assert fault["bad_end_ms"] == sorted(fault["bad_end_ms"])
        for call_id, end_ms in zip(fault["bad_call_ids"], fault["bad_end_ms"], strict=True):
            assert (fault["customer_id"], end_ms) in views[call_id]


def test_no_customer_has_two_faults(truth):
    customers = [fault["customer_id"] for fault in of(truth, "fault")]
    assert len(customers) == len(set(customers)) == round(SPEC.faulty_ratio * SPEC.customers)


def test_no_fault_hides_where_no_record_could_show_it():
    telco = draw_telco(replace(HEALTHY, faulty_ratio=1.0))
    people, network = telco.world.customers, telco.world.network
    behind = {fault.pattern for fault in telco.schedule.faults if network.node_probe[people.node[fault.customer]] == 3}
    assert behind == set(PATTERNS) - {"one_way_audio", "quality"}


def test_who_has_left_calls_no_more():
    telco = draw_telco(replace(HEALTHY, churn_month_ratio=0.5, days=8))
    calls = run_all(telco)
    left_ms = telco.schedule.left_ms[calls["customer"]]
    assert (left_ms < NEVER_MS).any()
    # A call may be up, and be dialled again, when its customer leaves; none is begun of free will.
    assert (calls["start_ms"] - left_ms).max() < 5 * HOUR_MS
    assert (calls["start_ms"] >= left_ms).mean() < 0.001


# The traffic


def test_calls_last_as_long_as_calls_do(healthy_calls):
    lasted_s = talk_ms(healthy_calls)[healthy_calls["answer_ms"] >= 0] / 1_000
    assert (lasted_s < 90).mean() == pytest.approx(0.60, abs=0.02)
    assert (lasted_s < 300).mean() == pytest.approx(0.84, abs=0.02)


def test_healthy_calls_drop_at_the_base_rate(healthy_calls):
    answered = take(healthy_calls, healthy_calls["answer_ms"] >= 0)
    hard = (RELEASED_BY[answered["ending"]] == 2) & (Q850[answered["ending"]] != 16)
    silent = ~hard & (answered["silence_ms"] >= 9_500)
    assert not answered["spoiled"].any()
    # Of the silent third, those that show less than 9.5 s of silence cannot be told from calls on hold here.
    assert 0.5 * HEALTHY.drop_ratio < (hard | silent).mean() < 1.3 * HEALTHY.drop_ratio


def test_one_call_in_twenty_is_followed_by_another_to_the_same_peer(healthy_calls):
    order = np.lexsort((healthy_calls["start_ms"], healthy_calls["customer"]))
    calls = take(healthy_calls, order)
    same = (calls["customer"][1:] == calls["customer"][:-1]) & (calls["peer"][1:] == calls["peer"][:-1])
    gap_ms = calls["start_ms"][1:] - calls["end_ms"][:-1]
    assert (same & (gap_ms >= 0) & (gap_ms <= 120_000)).mean() == pytest.approx(0.05, abs=0.02)


def test_customers_call_from_once_a_week_to_eighty_times_a_day():
    rates = build_world(replace(HEALTHY, customers=20_000)).customers.calls_per_day
    assert rates.min() == pytest.approx(1 / 7)
    assert 70 < rates.max() <= 80
    assert np.median(rates) == pytest.approx(2.4, abs=0.3)


@given(st.integers(0, 2), st.integers(0, 2), st.integers(0, 6))
def test_a_weekday_holds_exactly_one_days_calls(utc_offset_h, rhythm, days):
    start_ms = HEALTHY.start_ms + days * DAY_MS - utc_offset_h * HOUR_MS
    total = hourly_shares(utc_offset_h, rhythm, (start_ms, start_ms + DAY_MS)).sum()
    assert total == pytest.approx(1.0) if days < 5 else total < 1.0


@given(st.lists(st.tuples(*(st.integers(low, high) for low, high in WISHES)), min_size=1, max_size=60))
def test_a_line_holds_one_call_at_a_time(wishes):
    wishes.sort()
    line, start, lasts, gaps = (np.array(values) for values in zip(*wishes, strict=True))
    free = np.array([0, 2_000_000, 100, 0])
    calls = {"customer": line, "line": line, "start_ms": start, "answer_ms": start, "end_ms": start + lasts}
    _lay_on_lines(calls, free, np.array(gaps))
    assert (calls["end_ms"] - calls["start_ms"] == lasts).all()
    assert (calls["answer_ms"] == calls["start_ms"]).all()
    reached = free.copy()
    for row in range(len(line)):
        begins = max(start[row], reached[line[row]] + gaps[row])
        assert calls["start_ms"][row] == begins
        reached[line[row]] = begins + lasts[row]


@pytest.mark.parametrize("step_ms", [DAY_MS, HOUR_MS])
def test_people_with_one_line_hold_one_call_from_window_to_window(step_ms):
    telco = draw_telco(replace(HEALTHY, days=2))
    calls = run_all(telco, step_ms)
    single = telco.world.customers.channels[calls["customer"]] == 1
    calls = take(calls, single & (calls["answer_ms"] >= 0))
    calls = take(calls, np.lexsort((calls["start_ms"], calls["customer"])))
    same = calls["customer"][1:] == calls["customer"][:-1]
    assert (calls["start_ms"][1:] >= calls["end_ms"][:-1])[same].all()


@given(st.lists(st.integers(0, 2**63 - 1), unique=True, max_size=50), st.integers(0, 2**31))
def test_scrambled_numbers_stay_different(values, salt):
    assert len(set(mix(np.array(values, dtype=np.int64), salt).tolist())) == len(values)


# The media


@given(st.floats(0, 0.4), st.floats(0, 0.4), st.integers(0, len(CODECS) - 1), st.floats(0, 900), st.floats(1, 4))
def test_more_loss_never_sounds_better(loss, more, codec, rtt_ms, burst):
    calls = {
        "codec": np.array([codec, codec]),
        "rtt_ms": np.array([rtt_ms, rtt_ms]),
        "jitter_ms": np.array([3.0, 3.0]),
        "burst_ratio": np.array([burst, burst]),
    }
    better, worse = mos_of(calls, np.array([loss, loss + more])).tolist()
    assert 1.0 <= worse <= better <= 4.5 or CODECS[codec] == "opus"


def test_mos_is_that_of_the_e_model_for_known_points():
    calls = {name: np.zeros(3) for name in ("rtt_ms", "jitter_ms")}
    calls |= {"codec": np.array([0, 2, 2]), "burst_ratio": np.ones(3)}
    # By hand with d = 20 ms: R = 92.72; R = 82.72; Ie,eff = 10 + 85 * 4 / 23 = 24.78, so R = 67.94.
    assert mos_of(calls, np.array([0.0, 0.0, 0.04])).tolist() == [4.4, 4.12, 3.5]


def test_one_call_in_ten_has_no_mos_and_its_packets_add_up(events):
    heard = [event for event in events if kind(event) == "call" and event.answer_ms is not None]
    assert sum(event.mos is None for event in heard) / len(heard) == pytest.approx(0.11, abs=0.06)
    measured = [event for event in heard if event.packets_received is not None and event.packets_received > 500]
    for event in measured:
        wanted = (event.end_ms - event.answer_ms - event.silence_ms) * 0.05 * (1.0 - event.loss_ratio)
        # A second view's clock is up to two seconds off: a hundred packets.
        assert abs(event.packets_received - wanted) <= 101


# Trouble


def test_drops_come_at_the_faults_rate():
    telco, calls, bad = with_faults("drop_rate")
    struck = (calls["answer_ms"] >= 0) & (calls["start_ms"] >= telco.world.spec.start_ms + DAY_MS)
    struck &= calls["customer"] < 30
    rates = telco.schedule.table["rate"]
    assert height(bad) / struck.sum() == pytest.approx(rates.mean(), rel=0.25)
    assert (RELEASED_BY[bad["ending"]] == 2).any()
    assert ((Q850[bad["ending"]] == 16) & (bad["silence_ms"] > 3_000)).any()


def test_a_timer_cuts_calls_at_its_value_while_the_media_is_good():
    telco, calls, bad = with_faults("duration_lock")
    lock_ms = telco.schedule.table["lock_ms"][bad["fault"]]
    assert height(bad) > 100
    assert np.abs(talk_ms(bad) - lock_ms).max() < 2_000
    assert (bad["silence_ms"] < 300).all()
    assert bad["loss_added"].max() == 0.0
    every_lock = telco.schedule.table["lock_ms"][telco.schedule.fault_of[calls["customer"]]]
    ill = (calls["customer"] < 30) & (calls["start_ms"] > telco.world.spec.start_ms + DAY_MS)
    ill &= calls["answer_ms"] >= 0
    assert (talk_ms(calls) > every_lock + 2_000)[ill].mean() < 0.1


def test_an_evening_fault_keeps_to_its_hours():
    telco, _, bad = with_faults("time_of_day")
    table = telco.schedule.table
    hour = (bad["start_ms"] // HOUR_MS) % 24
    assert height(bad) > 50
    assert ((hour - table["first_hour"][bad["fault"]]) % 24 < table["hours"][bad["fault"]]).all()


def test_a_route_fault_keeps_to_its_route():
    telco, calls, bad = with_faults("route")
    columns = set()
    for index, fault in enumerate(telco.schedule.faults):
        mine = take(bad, bad["fault"] == index)
        columns.add(fault.column)
        assert (mine[fault.column] == fault.code).all()
        used = (calls["customer"] == fault.customer) & (calls[fault.column] == fault.code)
        assert used.any()
    assert columns == {"trunk", "codec", "sbc", "peer"}
    assert height(bad) > 100


def test_one_way_audio_is_silence_from_the_answer_on():
    _, _, bad = with_faults("one_way_audio")
    assert height(bad) > 100
    assert (bad["packets_received"] < 10).all()
    assert (bad["silence_ms"] == talk_ms(bad)).all()
    assert (talk_ms(bad) <= 20_000).all()
    assert np.isnan(bad["mos"]).all()


def test_hidden_drops_show_in_redials_alone():
    _, calls, bad = with_faults("redial")
    assert (SIP_STATUS[bad["ending"]] == 200).all()
    assert (bad["silence_ms"] < 2_000).all()
    by_peer = defaultdict(list)
    for customer, peer, start_ms in zip(calls["customer"], calls["peer"], calls["start_ms"], strict=True):
        by_peer[customer, peer].append(start_ms)
    again = [
        any(0 < start_ms - end_ms < 60_000 for start_ms in by_peer[customer, peer])
        for customer, peer, end_ms in zip(bad["customer"], bad["peer"], bad["end_ms"], strict=True)
    ]
    assert height(bad) > 100
    assert np.mean(again) > 0.75
    assert bad["mutual"].mean() == pytest.approx(0.5, abs=0.15)


def test_bad_quality_is_heard_and_measured():
    _, calls, bad = with_faults("quality")
    fine = calls["fault"] < 0
    assert height(bad) > 100
    assert np.nanmean(bad["mos"]) < 3.2
    assert np.nanmean(calls["mos"][fine]) > 3.9
    assert (bad["loss_ratio"] >= 0.03).all()


def test_failed_attempts_never_ring():
    telco, _, bad = with_faults("setup_failure")
    assert height(bad) > 100
    assert (bad["answer_ms"] < 0).all()
    assert (bad["ending"] == telco.schedule.table["ending"][bad["fault"]]).all()
    assert set(SIP_STATUS[bad["ending"]].tolist()) <= {480, 408, 500, 502, 503, 504}


def test_a_worsening_line_worsens():
    telco, _, bad = with_faults("worsening")
    day = (bad["start_ms"] - telco.world.spec.start_ms) // DAY_MS
    counts = np.bincount(day, minlength=12)
    assert counts[1:3].sum() < 0.5 * counts[4:6].sum()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_trouble_stays_with_its_customer_and_its_time(pattern):
    telco, calls, bad = with_faults(pattern)
    table = telco.schedule.table
    assert (bad["customer"] == table["customer"][bad["fault"]]).all()
    assert (bad["start_ms"] >= table["start_ms"][bad["fault"]]).all()
    assert not calls["spoiled"][calls["customer"] >= 30].any()
    answered = calls["answer_ms"] >= 0
    assert (calls["end_ms"] > calls["start_ms"]).all()
    assert ((calls["start_ms"] < calls["answer_ms"]) & (calls["answer_ms"] < calls["end_ms"]))[answered].all()
    assert (calls["silence_ms"] <= talk_ms(calls))[answered].all()


def test_an_outage_spoils_calls_on_its_element_while_it_lasts():
    world = build_world(replace(HEALTHY, customers=600, days=2))
    start_ms = world.spec.start_ms + 18 * HOUR_MS
    node = int(world.customers.node[0])
    name, end_ms = world.network.nodes[node], start_ms + 3 * HOUR_MS
    outage = Outage("access_node", name, "node", node, start_ms, end_ms, 0.8, HARD + 1)
    telco = found(world, make_schedule([], [outage], [], np.full(600, NEVER_MS)))
    calls = run_all(telco)
    bad = take(calls, calls["outage"] == 0)
    assert height(bad) > 20
    assert (bad["node"] == node).all()
    assert ((bad["end_ms"] >= start_ms) & (bad["answer_ms"] < outage.end_ms)).all()
    assert SIP_STATUS[bad["ending"]].tolist().count(503) > 10
    ledger = Ledger(world, telco.schedule)
    ledger.note(calls)
    record = orjson.loads(ledger.lines(Counts())[1])
    assert record["drops"] == height(bad) <= record["attempts"]
    assert record["customers"] == sorted({f"c{customer:06d}" for customer in bad["customer"].tolist()})


def test_no_call_is_blamed_on_two_troubles():
    spec = TelcoSpec(customers=300, days=4, seed=8, faulty_ratio=1.0, outage_scale=8.0)
    calls = run_all(draw_telco(spec))
    by_fault, by_outage = calls["fault"] >= 0, calls["outage"] >= 0
    assert by_fault.sum() > 100
    assert by_outage.sum() > 100
    assert not (by_fault & by_outage).any()
    assert (calls["spoiled"] == (by_fault | by_outage)).all()


def test_a_lying_probe_harms_no_call():
    world = build_world(replace(HEALTHY, customers=800, days=1))
    liar = ProbeFault(0, world.spec.start_ms, world.spec.end_ms)
    never = np.full(800, NEVER_MS)
    lied = run_all(found(world, make_schedule([], [], [liar], never)))
    told = run_all(found(world, make_schedule([], [], [], never)))
    on_it = (lied["probe"] == 0) & (lied["answer_ms"] >= 0)
    for name in ("call", "end_ms", "ending", "silence_ms"):
        assert (lied[name] == told[name]).all()
    assert np.nanmean(lied["mos"][on_it]) < 2.6
    assert np.nanmean(told["mos"][on_it]) > 3.9


def test_a_bad_firmware_reaches_one_model_and_stays():
    telco = draw_telco(TelcoSpec(customers=3_000, days=3, seed=2))
    rollout = next(outage for outage in telco.schedule.outages if outage.element_kind == "cpe_firmware")
    has_it = telco.schedule.firmware_ms < NEVER_MS
    assert 0.01 < has_it.mean() < 0.1
    assert len(set(telco.world.customers.model[has_it].tolist())) == 1
    assert rollout.end_ms == telco.world.spec.end_ms


# The evening to watch


def test_the_story_is_told_in_order_and_the_same_every_time():
    told = list(story(EVENING, 60.0))
    times = [at_ms for at_ms, _ in told]
    assert times == sorted(times)
    assert told == list(story(EVENING, 60.0))
    assert all(line.endswith(b"\n") for _, line in told)


def test_the_story_begins_before_its_first_hour_is_over():
    first = list(itertools.islice(story(EVENING, 60.0), EVENING.customers + 1))
    assert sum(b'"profile"' in line for _, line in first) >= EVENING.customers - 1
    assert first[-1][0] < EVENING.start_ms + 18 * HOUR_MS


@pytest.mark.parametrize("speed", [1.0, 60.0, 100_000.0])
def test_every_trouble_of_the_story_begins_early(speed):
    schedule = cast_evening(EVENING, speed).schedule
    begun_ms = [fault.start_ms - EVENING.start_ms - 17 * HOUR_MS for fault in schedule.faults]
    assert [fault.pattern for fault in schedule.faults] == list(CAST)
    assert 0 < begun_ms[0] <= max(begun_ms) <= 80 * 60_000
    assert schedule.outages[0].start_ms > schedule.faults[-1].start_ms


def test_every_fault_of_the_story_shows_within_its_evening():
    telco = cast_evening(EVENING, 60.0)
    exchange, start_ms = Exchange(telco.world, telco.schedule), telco.world.spec.start_ms
    calls = join([exchange.run(window) for window in day_windows(start_ms, start_ms + EVENING_MS, HOUR_MS)])
    bad = np.bincount(calls["fault"][calls["fault"] >= 0], minlength=len(CAST))
    assert (bad >= 8).all()
    assert (calls["outage"] == 0).sum() >= 30
