"""What the churn model is told of a customer's calls: the compiled reading of a row says what the row says."""

import numpy as np
import pytest
from engine_kit import DAY_MS, HOUR_MS, MONDAY_MS, batch, call, engine

from detectors.churn.features import EXPERIENCE
from detectors.evidence import DROP, QUALITY
from detectors.experience import experience
from detectors.watch.customers import evidence_days
from schemas.text import key_of


def read_from_the_row(memory, customer, now_ms):
    """Read the same features from the row, one by one, in Python."""
    known = {"cases_open": float(customer in memory.casebook.cases)}
    row = memory.roster.find(customer)
    if row < 0:
        return known
    one = memory.roster.book.rows[row]
    known["evidence"] = float(np.log10(max(evidence_days(one), 1.0)))
    for channel, name in ((DROP, "drop_ratio"), (QUALITY, "bad_quality_ratio")):
        if one["count"][channel] > 0:
            known[name] = float(one["weight"][channel] / one["count"][channel])
    known["days_since_call"] = max(0, now_ms - int(one["last_ms"])) / DAY_MS
    known["drops_7d"] = 0.0
    history = int(memory.note_of(one)["history"])
    if history >= 0:
        bad, _ = memory.histories.bad_calls(history)
        known["drops_7d"] = float(np.count_nonzero(bad["end_ms"] > now_ms - 7 * DAY_MS))
    return known


def known_of(memory, name, now_ms):
    """Return what `experience` knows, by name."""
    told = zip(EXPERIENCE, experience(memory, key_of(name), now_ms), strict=True)
    return {feature: value for feature, value in told if not np.isnan(value)}


def calls_of(customer, bad_ratio, seed):
    """Make three weeks of calls, some of them cut off or of poor sound."""
    drawn = np.random.default_rng(seed)
    for hour in range(0, 21 * 24, 5):
        media = {"loss_ratio": float(drawn.uniform(0.0, 0.2))} if hour % 2 else {}
        yield call(customer, MONDAY_MS + hour * HOUR_MS, dropped=bool(drawn.random() < bad_ratio), **media)


@pytest.fixture(scope="module")
def fed():
    """An engine that knows customers of every sort, and their names."""
    ratios = {f"c{index}": ratio for index, ratio in enumerate((0.0, 0.02, 0.1, 0.3, 0.6))}
    events = [event for seed, (name, ratio) in enumerate(ratios.items()) for event in calls_of(name, ratio, seed)]
    one = engine()
    one.apply(batch(sorted(events, key=lambda event: event["end_ms"])))
    return one, [*ratios, "a stranger"]


def test_the_features_of_calls_are_those_that_the_row_says(fed):
    one, names = fed
    for name in names:
        for now_ms in (MONDAY_MS + 21 * DAY_MS, MONDAY_MS + 24 * DAY_MS, MONDAY_MS + 60 * DAY_MS):
            expected = read_from_the_row(one.memory, key_of(name), now_ms)
            assert known_of(one.memory, name, now_ms) == expected


def test_there_is_something_of_everything(fed):
    one, names = fed
    told = [known_of(one.memory, name, MONDAY_MS + 21 * DAY_MS) for name in names]
    for feature in ("evidence", "drop_ratio", "bad_quality_ratio", "drops_7d", "cases_open"):
        assert len({known.get(feature) for known in told}) > 1


def test_what_is_kept_of_a_customer_is_of_the_time_when_the_business_spoke_not_of_later():
    def kept_with(later):
        one = engine()
        cut = [call("ana", MONDAY_MS + hour * HOUR_MS, dropped=True) for hour in (1, 2)]
        said = {"type": "contact", "customer_id": "ana", "at_ms": MONDAY_MS + 3 * HOUR_MS, "topic": "quality"}
        one.apply(batch([*cut, said, *later]))
        return one.memory.advisor.changes(1, whole=True)["labels"]["pending"]["entries"]

    assert kept_with([]) == kept_with([call("ana", MONDAY_MS + hour * HOUR_MS) for hour in range(4, 90)])
    assert kept_with([])
