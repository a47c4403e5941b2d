"""Local time as text and kernels see it."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from engine_kit import HOUR_MS, batch, call, engine, told
from hypothesis import given
from hypothesis import strategies as st

from detectors.zone import DAY_MS, DAYS, hour_of, local_ms, local_time

MONDAY_MS = 1_767_571_200_000
ZONES = ("UTC", "Europe/Oslo", "America/Los_Angeles", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia")


@pytest.mark.parametrize(
    ("time_ms", "zone", "words"),
    [
        (MONDAY_MS, "UTC", "Monday, 5 January"),
        (MONDAY_MS - 1, "UTC", "Sunday, 4 January"),
        (0, "UTC", "Thursday, 1 January"),
        (MONDAY_MS, "America/New_York", "Sunday, 4 January"),
        (MONDAY_MS - 1, "Asia/Tokyo", "Monday, 5 January"),
    ],
)
def test_a_day_is_said_as_people_there_say_it(time_ms, zone, words):
    assert local_time(zone).day(time_ms) == words


@given(st.integers(0, DAYS - 1), st.sampled_from(ZONES))
def test_at_noon_of_utc_clocks_are_those_of_the_time_zone_database(day, zone):
    time_ms = day * DAY_MS + DAY_MS // 2
    local = dt.datetime.fromtimestamp(time_ms // 1000, ZoneInfo(zone))
    ahead_min = local_time(zone).ahead_min
    shown_ms = local_ms(time_ms, ahead_min)
    assert shown_ms // 60_000 * 60_000 == int(local.replace(tzinfo=dt.UTC).timestamp()) // 60 * 60_000
    assert hour_of(time_ms, ahead_min) == local.hour


@given(st.integers(0, DAYS * DAY_MS), st.sampled_from(ZONES))
def test_at_any_time_a_clock_is_right_or_off_by_the_change_of_that_day(time_ms, zone):
    ahead_min = local_time(zone).ahead_min
    moment = dt.datetime.fromtimestamp(time_ms // 1000, ZoneInfo(zone))
    true_min = moment.utcoffset() // dt.timedelta(minutes=1)
    day = min(time_ms // DAY_MS, DAYS - 1)
    around = {int(ahead_min[max(day - 1, 0)]), int(ahead_min[day]), int(ahead_min[min(day + 1, DAYS - 1)])}
    assert true_min in around
    assert (local_ms(time_ms, ahead_min) - time_ms) // 60_000 in around


@pytest.mark.parametrize("time_ms", [-1, DAYS * DAY_MS, 2**52])
def test_times_that_nobody_knows_the_offset_of_are_taken_as_the_nearest(time_ms):
    ahead_min = local_time("Asia/Tokyo").ahead_min
    assert local_ms(time_ms, ahead_min) == time_ms + 540 * 60_000


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [("UTC", "Sunday, 25 January", "20:00 and 22:00 UTC"), ("Asia/Tokyo", "Monday, 26 January", "05:00 and 07:00")],
)
def test_an_alert_says_the_day_and_the_hours_of_its_network(zone, day, hours):
    days = [MONDAY_MS + day * DAY_MS for day in range(24)]
    good = [call("ada", at + hour * HOUR_MS) for at in days[:20] for hour in (1, 4, 9, 13)]
    bad = [call("ada", at + late_ms, dropped=True) for at in days[20:] for late_ms in (20 * HOUR_MS, 21 * HOUR_MS)]
    pattern = told(engine(timezone=zone).apply(batch(good + bad)))[-1]["data"]["pattern"]
    assert f"since {day} " in pattern["text"]
    assert pattern["text"].endswith(f"mostly between {hours}.")
    assert pattern["dimension"] == {"name": "hour", "value": f"{hours[:2]}-{hours[10:12]}"}
