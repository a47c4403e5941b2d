"""Routing: what is sent, held and skipped is a function of notification, rule, history and time."""

import datetime as dt
import zoneinfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.alerts import Dimension, Notification, notification
from sinks.routing import (
    DAY_MS,
    SEVERITIES,
    ContactCap,
    Facts,
    QuietHours,
    Rule,
    Standing,
    UnreadableError,
    facts_of,
    quiet_until_ms,
    route,
)
from sinks.shapes.samples import OPENED, SHARED, samples

NOON_MS = 1_767_700_800_000
TYPES = sorted({sample.type for sample in samples().values()})
FACTS = st.builds(
    Facts,
    type=st.sampled_from(TYPES),
    severity=st.sampled_from(SEVERITIES),
    customer_id=st.sampled_from([None, "k1"]),
    region=st.sampled_from([None, "north", "south"]),
    segment=st.sampled_from([None, "gold"]),
    band=st.sampled_from([None, "low", "high"]),
)
SETS = st.frozensets(st.sampled_from(["north", "gold", "unknown", "high"]), max_size=3)
ZONES = st.sampled_from(
    ["UTC", "Europe/Oslo", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kolkata"]
)
QUIET = st.builds(QuietHours, st.integers(0, 1439), st.integers(0, 1439), ZONES).filter(
    lambda quiet: quiet.begin_minute != quiet.end_minute
)
CAPS = st.builds(ContactCap, st.integers(1, 3), st.integers(1, 3))
RULES = st.builds(
    Rule,
    types=st.frozensets(st.sampled_from(TYPES)),
    severity_min=st.sampled_from(SEVERITIES),
    regions=SETS,
    segments=SETS,
    bands=SETS,
    quiet=st.none() | QUIET,
    cap=st.none() | CAPS,
)
TIMES = st.integers(NOON_MS - 400 * DAY_MS, NOON_MS + 400 * DAY_MS)
STANDINGS = st.builds(Standing, st.booleans(), st.lists(TIMES, max_size=5).map(tuple))


def hour(hours: float) -> int:
    return NOON_MS + int(hours * 3_600_000)


class TestFilters:
    @given(FACTS, STANDINGS, TIMES)
    def test_a_rule_that_asks_nothing_sends_everything(self, facts, standing, now_ms):
        assert route(facts, Rule(), standing, now_ms).verb == "send"

    @given(FACTS, RULES, STANDINGS, TIMES)
    def test_a_case_that_was_told_is_skipped_for_its_type_alone(self, facts, rule, standing, now_ms):
        told = route(facts, rule, replace(standing, told=True), now_ms)
        assert (told.verb == "skip") == (bool(rule.types) and facts.type not in rule.types)

    @given(FACTS, RULES, STANDINGS, TIMES)
    def test_time_decides_between_sending_and_holding_and_never_skips(self, facts, rule, standing, now_ms):
        timeless = route(facts, replace(rule, quiet=None, cap=None), standing, now_ms).verb
        assert (route(facts, rule, standing, now_ms).verb == "skip") == (timeless == "skip")

    @given(FACTS, RULES, STANDINGS, TIMES)
    def test_what_is_held_is_held_for_a_while_and_then_sent(self, facts, rule, standing, now_ms):
        verbs = [route(facts, rule, standing, now_ms)]
        # Quiet hours, the cap, and quiet hours once more: three holds at most.
        while verbs[-1].verb == "hold":
            assert verbs[-1].until_ms > now_ms
            now_ms = verbs[-1].until_ms
            verbs.append(route(facts, rule, standing, now_ms))
            assert len(verbs) <= 4
        assert len(verbs) == 1 or verbs[-1].verb == "send"

    @given(FACTS, RULES, TIMES, st.sampled_from(["severity_min", "regions", "segments", "bands", "types"]))
    def test_a_rule_that_asks_less_takes_no_less(self, facts, rule, now_ms, name):
        wider = replace(rule, **{name: getattr(Rule(), name)})
        if route(facts, rule, Standing(), now_ms).verb != "skip":
            assert route(facts, wider, Standing(), now_ms).verb != "skip"

    @pytest.mark.parametrize(
        ("rule", "changes", "taken"),
        [
            (Rule(severity_min="major"), {"severity": "minor"}, False),
            (Rule(severity_min="major"), {"severity": "major"}, True),
            (Rule(severity_min="major"), {"severity": "critical"}, True),
            (Rule(regions=frozenset({"north"})), {"region": "north"}, True),
            (Rule(regions=frozenset({"north"})), {"region": "south"}, False),
            (Rule(regions=frozenset({"north"})), {"region": None}, False),
            (Rule(regions=frozenset({"north", "unknown"})), {"region": None}, True),
            (Rule(segments=frozenset({"gold"})), {"segment": None}, False),
            (Rule(segments=frozenset({"unknown"})), {"segment": None}, True),
            (Rule(bands=frozenset({"high"})), {"band": "low"}, False),
            (Rule(bands=frozenset({"high"})), {"band": "high"}, True),
            (Rule(bands=frozenset({"high"})), {"customer_id": None, "band": None}, True),
            (Rule(types=frozenset({"stayline.alert.resolved"})), {}, False),
        ],
    )
    def test_filters_ask_what_they_are_named_for(self, rule, changes, taken):
        facts = replace(facts_of(samples()["opened"]), **changes)
        assert (route(facts, rule, Standing(), NOON_MS).verb == "send") == taken


class TestQuietHours:
    NIGHT = QuietHours(21 * 60, 8 * 60, "UTC")

    @pytest.mark.parametrize(
        ("at", "until"), [(0, 0), (8.99, 8.99), (9, 20), (12, 20), (19.99, 20), (20, 20), (32.99, 32.99), (33, 44)]
    )
    def test_a_night_is_held_until_the_morning(self, at, until):
        assert quiet_until_ms(self.NIGHT, hour(at)) == hour(until)

    @given(QUIET, TIMES)
    def test_the_end_is_the_first_minute_that_is_not_quiet(self, quiet, now_ms):
        def is_quiet(minute):
            at = dt.datetime.fromtimestamp(60 * minute, tz=zoneinfo.ZoneInfo(quiet.zone))
            local = at.hour * 60 + at.minute
            past_begin, before_end = local >= quiet.begin_minute, local < quiet.end_minute
            crosses = quiet.begin_minute > quiet.end_minute
            return (past_begin or before_end) if crosses else (past_begin and before_end)

        until_ms = quiet_until_ms(quiet, now_ms)
        assert now_ms <= until_ms < now_ms + 26 * 3_600_000
        assert not is_quiet(until_ms // 60_000)
        if until_ms > now_ms:
            assert until_ms % 60_000 == 0
            assert is_quiet(now_ms // 60_000)
            assert is_quiet(until_ms // 60_000 - 1)

    @pytest.mark.parametrize(
        ("date", "hours"), [((2026, 3, 28), 10), ((2026, 3, 29), 11), ((2026, 10, 24), 12), ((2026, 10, 23), 11)]
    )
    def test_nights_in_which_the_clock_is_changed_end_at_the_same_hour(self, date, hours):
        zone = zoneinfo.ZoneInfo("Europe/Oslo")
        evening = dt.datetime(*date, 21, 0, tzinfo=zone)
        until_ms = quiet_until_ms(replace(self.NIGHT, zone="Europe/Oslo"), int(evening.timestamp() * 1000))
        end = dt.datetime.fromtimestamp(until_ms / 1000, tz=zone)
        assert (end.hour, end.minute) == (8, 0)
        assert (until_ms / 1000 - evening.timestamp()) / 3600 == hours


class TestContactCap:
    @given(CAPS, st.lists(st.integers(0, 20 * DAY_MS), min_size=1, max_size=30).map(sorted))
    def test_no_window_sees_more_contacts_than_the_cap(self, cap, wanted):
        """Each case asks when it opens, and again whenever it was told to wait."""
        facts, contacts = facts_of(samples()["opened"]), []
        for at_ms in wanted:
            now_ms = at_ms
            while (decision := route(facts, Rule(cap=cap), Standing(False, tuple(contacts)), now_ms)).verb == "hold":
                assert decision.reason == "contact_cap"
                now_ms = decision.until_ms
            contacts.append(now_ms)
        for start_ms in contacts:
            window = [at for at in contacts if start_ms <= at < start_ms + cap.days * DAY_MS]
            assert len(window) <= cap.contacts_max
        assert len(contacts) == len(wanted)

    @given(CAPS, STANDINGS, TIMES)
    def test_a_hold_is_as_short_as_the_cap_allows(self, cap, standing, now_ms):
        facts = facts_of(samples()["opened"])
        decision = route(facts, Rule(cap=cap), replace(standing, told=False), now_ms)
        assume(decision.verb == "hold")
        before = route(facts, Rule(cap=cap), replace(standing, told=False), decision.until_ms - 1)
        assert before == decision

    def test_what_is_no_new_contact_is_not_held(self):
        rule, full = Rule(cap=ContactCap(1, 7)), Standing(False, (NOON_MS,))
        assert route(facts_of(samples()["opened"]), rule, full, NOON_MS).verb == "hold"
        assert route(facts_of(samples()["updated"]), rule, replace(full, told=True), NOON_MS).verb == "send"
        assert route(facts_of(samples()["incident_opened"]), rule, full, NOON_MS).verb == "send"


class TestFacts:
    def test_the_region_is_where_the_pattern_lives(self):
        north = replace(OPENED, pattern=replace(OPENED.pattern, dimension=Dimension("region", "north")))
        assert facts_of(samples()["opened"]).region is None
        assert facts_of(notification("west", "stayline.alert.opened", 1, north)).region == "north"

    @pytest.mark.parametrize(("name", "value"), [("region", "south"), ("segment", "gold")])
    def test_where_an_alert_says_that_a_customer_belongs_is_read(self, name, value):
        facts = facts_of(notification("west", "stayline.alert.opened", 1, replace(OPENED, **{name: value})))
        assert getattr(facts, name) == value

    def test_an_incident_of_a_region_is_in_it(self):
        north = replace(SHARED, element_kind="region", element_id="north")
        facts = facts_of(notification("west", "stayline.incident.opened", 1, north))
        assert (facts.region, facts.customer_id, facts.band) == ("north", None, None)

    @pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b'{"data": {"severity": "grave"}}', b'{"data": {}}'])
    def test_what_cannot_be_read_is_an_error_and_no_guess(self, body):
        with pytest.raises(UnreadableError):
            facts_of(Notification("a-1", "stayline.alert.opened", "a", 1, 1, body))
