"""What the engine is asked to forget is gone: byte by byte, and for what it decides from then on."""

import numpy as np
import orjson
from engine_kit import DAY_MS, HOUR_MS, MONDAY_MS, alerts, batch, call, engine, habit, told

from schemas.text import key_of

CANARY = "canary-customer-00042"
START_MS = MONDAY_MS + 10 * DAY_MS


def about_canary():
    """Everything that events can tell of one customer, trouble enough for a case included."""
    known = {"customer_id": CANARY, "at_ms": START_MS}
    yield {
        "type": "profile",
        **known,
        "plan": "fibre",
        "tenure_days": 400,
        "monthly_fee_minor": 2_000,
        "currency": "EUR",
    }
    yield {"type": "usage", **known, "minutes": 100.0, "period_days": 30}
    yield {"type": "contact", **known, "topic": "quality"}
    yield {
        "type": "link",
        **known,
        "element_kind": "customer_line",
        "element_id": "l",
        "metric": "snr_margin_db",
        "value": 4.0,
    }
    for number in range(12):
        yield call(CANARY, START_MS + number * HOUR_MS, dropped=True)
    yield call(CANARY, START_MS + 12 * HOUR_MS)


def about_others():
    rng = np.random.default_rng(5)
    yield from habit("quiet", 12, 4, rng, access_node="N")
    # One whose every call goes to the canary, bad ones among them.
    for number in range(12):
        yield call("caller", START_MS + number * HOUR_MS, dropped=number % 2 == 0, peer_id=CANARY)


def traces(snapshot):
    """Return in which spellings the canary stands in a snapshot."""
    import msgspec  # noqa: PLC0415  for this alone

    data = msgspec.msgpack.encode(snapshot)
    key = key_of(CANARY)
    spellings = {
        "id": CANARY.encode(),
        "key": key.to_bytes(8, "little"),
        "key in digits": str(key).encode(),
        "far end": (key & 0xFFFF_FFFF).to_bytes(4, "little"),
        "packed key": key.to_bytes(8, "big"),
    }
    return {name for name, spelling in spellings.items() if spelling in data}


def test_no_trace_of_a_forgotten_customer_is_left_in_the_state():
    one = engine()
    envelopes = told(one.apply(batch([*about_others(), *about_canary()])))
    assert alerts(envelopes, CANARY)
    assert traces(one.snapshot()) == {"id", "key", "key in digits", "far end", "packed key"}
    erased = one.forget(CANARY)
    assert set(erased) == {
        "case", "evidence", "calls", "profile", "line readings", "labels", "alerts", "decisions", "network's bad calls",
        "far end of others",
    }  # fmt: skip
    assert traces(one.snapshot()) == set()
    assert one.forget(CANARY) == {}


def test_a_lock_that_a_forgotten_customer_was_cut_at_does_not_say_who_he_was():
    one = engine()
    one.apply(batch([call("b", START_MS + at * DAY_MS, talk_s=437.0, peer_id=CANARY) for at in range(1, 5)]))
    row = one.memory.roster.find(key_of("b"))
    assert one.memory.roster.book.rows[row]["lock_peer"].any()
    one.forget(CANARY)
    assert not one.memory.roster.book.rows[row]["lock_peer"].any()


def test_a_history_that_is_used_again_holds_nothing_of_who_was_forgotten():
    one = engine()
    one.apply(batch(about_canary()))
    calls_before = {int(call["end_ms"]) for call in one.memory.histories.shelf.items[0]["bad"]}
    one.forget(CANARY)
    one.apply(batch([call("next", START_MS + 20 * DAY_MS, dropped=True)]))
    calls_now = {int(call["end_ms"]) for call in one.memory.histories.shelf.items[0]["bad"]}
    assert not calls_before & calls_now - {0}


def test_who_is_forgotten_begins_anew_and_others_go_on_as_if_nothing_had_happened():
    others = sorted(about_others(), key=lambda event: event["end_ms"])
    half = len(others) // 2
    disturbed, undisturbed = engine(), engine()
    for each in (disturbed, undisturbed):
        each.apply(batch([*others[:half], *about_canary()]))
    disturbed.forget(CANARY)
    assert disturbed.standing(CANARY) is None
    after = [each.apply(batch(others[half:])) for each in (disturbed, undisturbed)]
    assert [one for one in after[0] if orjson.loads(one.body)["subject"] != CANARY] == after[1]
    disturbed.apply(batch([call(CANARY, START_MS + 30 * DAY_MS)]))
    assert disturbed.standing(CANARY).calls == []


def test_to_forget_somebody_unknown_changes_nothing():
    one = engine()
    one.apply(batch(about_others()))
    before = one.snapshot()
    assert one.forget("nobody") == {}
    assert one.snapshot() == before
