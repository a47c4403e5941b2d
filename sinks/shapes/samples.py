"""One notification of every type, as the engine writes them: what a shape is tried on before it meets a real one."""

from msgspec.structs import replace

from schemas.alerts import (
    Alert,
    CallEvidence,
    Cause,
    ChurnRisk,
    Credit,
    Dimension,
    Driver,
    Incident,
    Notification,
    Order,
    Pattern,
    Remedy,
    notification,
)

BEGAN_MS = 1_767_700_800_000
"""6 January 2026, 12:00 UTC."""
HOUR_MS = 3_600_000

OPENED = Alert(
    alert_id="al_7f3c2b9e4d1a",
    revision=1,
    customer_id="tok_5b1d",
    severity="major",
    detected_ms=BEGAN_MS + 5 * HOUR_MS,
    since_ms=BEGAN_MS,
    pattern=Pattern(
        kind="duration_lock",
        text="3 of your last 4 calls since Tuesday, 6 January were cut off, always after 60 seconds.",
        attempts=5,
        answered=4,
        drops=3,
        drop_ratio=0.75,
        baseline_ratio=0.012,
        evidence=5.31,
        dimension=Dimension("trunk", "trunk-fjord"),
    ),
    cause=Cause("session_timer", 0.82, ["route_or_trunk"]),
    incident_id=None,
    churn=ChurnRisk(0.34, "high", 0.08, [Driver("drops_7d", 0.91, "3 dropped calls in a week")], "prior-1"),
    value_at_risk_minor=12_240,
    currency="EUR",
    remedies=[
        Remedy(
            remedy_id="route_change",
            title="Move the calls to another route",
            say='We found the fault and moved your calls to "another" route.',
            why="All three calls took the same trunk.",
            cost_minor=0,
            expected_gain_minor=2_100,
        ),
        Remedy(
            remedy_id="credit_days",
            title="Credit the bad days",
            say="We credit you the days on which your calls failed.",
            why="Three bad calls on two days.",
            cost_minor=200,
            expected_gain_minor=900,
            credit=Credit(200, "EUR", "bad_days-1: 2 x 1.00"),
        ),
    ],
    calls=[CallEvidence("c-1", BEGAN_MS + 60_000, "silent_drop", 60_000, 4.1), CallEvidence("c-2", 0, "drop", 60_000)],
)

UPDATED = replace(
    OPENED,
    revision=2,
    severity="critical",
    incident_id="in_02",
    pattern=replace(OPENED.pattern, attempts=9, answered=8, drops=6, text="6 of your last 8 calls were cut off."),
    remedies=[],
    currency=None,
    value_at_risk_minor=None,
)

RESOLVED = replace(UPDATED, revision=3)

ORDERED = replace(
    OPENED,
    revision=4,
    order=Order(
        order_id="al_7f3c2b9e4d1a-credit_days",
        remedy_id="credit_days",
        title="Credit the bad days",
        ordered_ms=BEGAN_MS + 80 * HOUR_MS,
        cost_minor=200,
        credit=Credit(200, "EUR", "bad_days-1: 2 x 1.00", ["c-1", "c-2"]),
        needs_approval=True,
        partner_id="desk-north",
    ),
)

SHARED = Incident(
    incident_id="in_02",
    revision=1,
    element_kind="trunk",
    element_id="trunk-fjord",
    detected_ms=BEGAN_MS + HOUR_MS,
    since_ms=BEGAN_MS,
    cleared_ms=None,
    customers_affected=41,
    drops=77,
    attempts=210,
    drop_ratio=0.3667,
    baseline_ratio=0.011,
    evidence=9.4,
    text="Calls through trunk trunk-fjord are cut off: 77 of 210 since 12:00 UTC.",
)

LYING = replace(
    SHARED,
    incident_id="in_03",
    element_kind="probe",
    element_id="probe-4",
    customers_affected=0,
    text="Probe probe-4 reports drops that no other probe sees: the calls were fine.",
)


def samples() -> dict[str, Notification]:
    """Return the samples by name, in an order that may happen."""
    ended_ms = BEGAN_MS + 72 * HOUR_MS
    cleared = replace(SHARED, revision=2, cleared_ms=ended_ms)
    return {
        "opened": notification("west", "stayline.alert.opened", OPENED.detected_ms, OPENED),
        "updated": notification("west", "stayline.alert.updated", BEGAN_MS + 9 * HOUR_MS, UPDATED),
        "resolved": notification("west", "stayline.alert.resolved", ended_ms, RESOLVED),
        "ordered": notification("west", "stayline.alert.resolved", BEGAN_MS + 80 * HOUR_MS, ORDERED),
        "incident_opened": notification("west", "stayline.incident.opened", SHARED.detected_ms, SHARED),
        "incident_cleared": notification("west", "stayline.incident.cleared", ended_ms, cleared),
        "probe_opened": notification("west", "stayline.incident.opened", LYING.detected_ms, LYING),
    }
