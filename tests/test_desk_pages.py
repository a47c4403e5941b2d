"""The desk's pages: what they show, under hostile text too, and the pictures in them."""

from urllib.parse import quote

import msgspec
import pytest
from desk_kit import HOME, HOSTILE, NOW_MS, REMEDY, Page, alert, incident, poisoned, told
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from starlette.testclient import TestClient

from schemas.alerts import Alert, CallEvidence, Choice, ChurnRisk, Driver, FollowUp, GoodCall, Incident, Order, Remedy
from schemas.events import Outcome
from sinks.desk import charts
from sinks.desk.app import desk_application
from sinks.desk.cards import SEVERITIES, Revision
from sinks.desk.figures import Bin, Figures, Model, Suspect
from sinks.desk.words import case_path

FIGURES = Figures(
    NOW_MS,
    5_000,
    {"applied": 123_456, "duplicate": 12, "late": 3, "dead_lettered": 1},
    8,
    200,
    4,
    5,
    {"crm": 2},
    [Suspect("access_node", "node-7", 114, 85, 0.02, 1e6, True), Suspect("sbc", "sbc-1", 310, 14, 0.02, 4.2, False)],
    Model(5_120, 80, 0.0156, 0.0148, 0.0154, 0.003, [Bin(0.01, 0.008, 2_100), Bin(0.04, 0.05, 600)]),
)


def test_the_feed_ranks_by_value_and_keeps_incidents_apart(desk):
    values = {"al_low": 100, "al_none": None, "al_high": 90_000}
    desk.store.put([told(alert(name, value_at_risk_minor=value)) for name, value in values.items()])
    desk.store.put([told(incident()), told(alert("al_over", revision=2), "resolved")])
    page = desk.get("/")
    assert page.cases() == ["al_high", "al_low", "al_none"]
    for text in (
        "3 customers to call",
        "€900.00",
        "€901.00",
        "not known",
        "137 customers covered",
        "Major",
        "No login:",
    ):
        assert text in page.text


def test_a_card_shows_how_the_value_at_risk_was_computed(desk):
    basis = "1.50% chance of leaving x 30.00 EUR a month x 50% margin (assumed) x 24 months (assumed)"
    desk.store.put([told(alert("al_1", value_basis=basis)), told(alert("al_2", value_at_risk_minor=None))])
    assert basis in desk.get(case_path("al_1")).text
    assert "(assumed)" not in desk.get(case_path("al_2")).text


def test_the_feed_filters_and_searches(desk):
    desk.store.put(
        [
            told(alert("al_1", severity="critical", region="south")),
            told(alert("al_2", customer_id="c7%_x", incident_id="in_1")),
            told(alert("al_3", customer_id="c7abc"), "resolved"),
        ]
    )
    for query, expected in {
        "?severity=critical": ["al_1"],
        "?kind=route": [],
        "?band=high&severity=": ["al_2", "al_1"],
        "?region=south": ["al_1"],
        "?customer=c7": ["al_3", "al_2"],
        "?customer=c7%25": ["al_2"],
        "?show=over": ["al_3"],
        "?show=all&incident=in_1": ["al_2"],
        "?mine=1": [],
    }.items():
        assert sorted(desk.get(f"/{query}").cases()) == sorted(expected), query


@pytest.mark.parametrize(
    "query", ["severity=huge", "show=x", "page=0", "page=x", "customer=" + "c" * 65, "region=%00", "owner=" + "x" * 257]
)
def test_what_the_feed_cannot_be_asked_is_refused(desk, query):
    assert desk.client.get(f"/?{query}").status_code == 400


def test_pages_follow_each_other_without_overlap(desk):
    desk.store.put([told(alert(f"al_{n:03}", value_at_risk_minor=n)) for n in range(120)])
    found: list[str | None] = []
    path = "/?severity=major"
    while path:
        page = desk.get(path)
        found += page.cases()
        path = next(("/" + each["href"] for each in page.all("a") if each.get("rel") == "next"), "")
    assert found == [f"al_{n:03}" for n in reversed(range(120))]


def test_an_empty_desk_says_what_will_appear_and_when(desk):
    text = desk.get("/").text
    assert "Nobody needs a call" in text
    assert "up to an hour later" in text
    assert "Nobody needs a call" not in desk.get("/?severity=minor").text
    for show in ("contacted", "snoozed", "over", "all"):
        assert "Nobody needs a call" not in desk.get(f"/?show={show}").text


def test_the_card_shows_all_of_the_alert(desk):
    calls = [CallEvidence("k1", NOW_MS, "one_way_audio", 902_000, None), CallEvidence("k2", NOW_MS, "odd_word", 0, 4.2)]
    desk.store.put([told(alert()), told(alert(revision=2, severity="critical", calls=calls), "updated")])
    text = desk.get("/cases/al_1").text
    for words in (
        *("4 of 5 calls.", "Critical", "Cut off at the same length", "Call length 32 s", "c0001", "north"),
        *("€218.40", "20%", "1.5%", "A call timer, in the network or the router", "78%", "network at the other end"),
        *("Fix the timer", "I am fixing it.", "It fits.", "€3.00", "€41.20", "€5.73 credit", "4 x 1"),
        *("A customer for 6 years", "model@1", "One-way sound", "15 min 02 s", "Odd word", "4.2", "80%"),
        *("Updated", "Opened", "revision 2", "Jan 17, 2026", "Unreachable", "6,309,573 to 1"),
    ):
        assert words in text, words
    assert desk.client.get("/cases/al_9").status_code == 404


def test_the_card_names_the_shared_fault(desk):
    desk.store.put([told(alert(incident_id="in_1"))])
    assert "in_1" in desk.get("/cases/al_1").text
    desk.store.put([told(incident())])
    assert "It is not over" in desk.get("/cases/al_1").text
    desk.store.put([told(incident(revision=2, cleared_ms=NOW_MS), "cleared")])
    assert "Over since" in desk.get("/cases/al_1").text


def test_the_card_leads_to_the_next_customer(desk):
    desk.store.put([told(alert("al_1", value_at_risk_minor=9)), told(alert("al_2", value_at_risk_minor=5))])
    page = desk.get("/cases/al_1")
    assert [each["href"] for each in page.all("a") if each.get("rel") == "next"] == ["/cases/al_2"]


def test_the_operations_view_shows_incidents_elements_budget_and_model(store):
    store.put([told(incident()), told(alert())])
    application = desk_application(store, list[Outcome]().append, figures=lambda: FIGURES)
    with TestClient(application, base_url=HOME, client=("127.0.0.1", 1)) as client:
        text = Page(client.get("/network").text).text
    for words in ("dsl-41", "137 customers covered", "node-7", "+82.7", "sbc-1", "8 of 200", "5,120 labels", "123,456"):
        assert words in text, words


def test_an_open_incident_is_shown_as_it_stands_and_a_cleared_one_as_it_ended(store):
    store.put([told(incident()), told(incident("in_2", element_id="dsl-42", cleared_ms=NOW_MS + 1), "cleared")])
    now = replace(FIGURES, incidents=[incident(customers_affected=211), incident("in_2", customers_affected=9)])
    application = desk_application(store, list[Outcome]().append, figures=lambda: now)
    with TestClient(application, base_url=HOME, client=("127.0.0.1", 1)) as client:
        feed, network = (Page(client.get(path).text).text for path in ("/", "/network"))
    assert "211 customers covered" in feed
    assert "211 customers covered" in network
    assert "137 customers covered" in network
    assert "9 customers covered" not in network


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("en", ("Talk first.", "After “Fix the timer” the calls are being watched.", "Needs a supervisor")),
        ("de", ("Zuerst anbieten: Fix the timer", "werden die Gespräche beobachtet", "Braucht eine Teamleitung")),
        ("zh", ("先提供", "正在观察通话", "需要主管批准")),
    ],
)
def test_a_card_says_what_was_chosen_what_is_watched_and_what_was_ordered(served, code, words):
    desk, store = served.client, served.store
    order = Order("o1", "timer_fix", "Fix the timer", NOW_MS, 300, needs_approval=True)
    watched = FollowUp("timer_fix", NOW_MS, NOW_MS + 86_400_000, "watching")
    chosen = Choice("timer_fix", 0.9, "Talk first.")
    store.put([told(alert(choice=chosen, follow_up=watched, order=order, previous_alert_id="al_0"))])
    page = desk.get("/cases/al_1", headers={"accept-language": code}).text
    for word in words:
        assert word in Page(page).text, word
    assert 'href="/cases/al_0"' in page


@pytest.mark.parametrize(
    ("action", "gain_minor", "words"),
    [
        ("leave_alone", 0, "Nichts anbieten: Es ist nichts zu erwarten"),
        ("leave_alone", 1, "So wurde gelost"),
        ("hold_out", 1, "Nur Reparaturen anbieten"),
    ],
)
def test_a_choice_of_no_remedy_is_said_in_the_readers_language(served, action, gain_minor, words):
    desk, store = served.client, served.store
    offer = replace(REMEDY, expected_gain_minor=gain_minor)
    store.put([told(alert(remedies=[offer], choice=Choice(action, 0.1, "Leave it.")))])
    assert words in Page(desk.get("/cases/al_1", headers={"accept-language": "de"}).text).text


@pytest.mark.parametrize(("action", "tagged"), [("line_reprofile", True), ("leave_alone", False)])
def test_the_chosen_remedy_is_the_one_that_is_open_and_tagged(served, action, tagged):
    desk, store = served.client, served.store
    second = Remedy("line_reprofile", "Set the line anew", "I set it anew.", "It is noisy.", 200, 100)
    store.put([told(alert(remedies=[REMEDY, second], choice=Choice(action, 0.1, "So it was chosen.")))])
    page = desk.get("/cases/al_1").text
    opened = page.split('<li class="remedy first">')[1].split("</li>")[0]
    assert (second if tagged else REMEDY).title in opened
    assert page.count("Offer first") == tagged


def test_the_timeline_shows_good_calls_between_the_bad_ones(served):
    good = [GoodCall(NOW_MS + 90_000, 45_000, 4.3)]
    served.store.put([told(alert(good_calls=good))])
    page = Page(served.client.get("/cases/al_1").text)
    assert "Ended normally" in page.text
    marks = charts.timeline(charts.calls_of(alert(good_calls=good))).marks
    assert [mark.sign for mark in marks] == ["cut", "cut", "fine", "cut"]


def test_a_failed_remedy_is_said_to_have_failed(served):
    desk, store = served.client, served.store
    store.put([told(alert(follow_up=FollowUp("timer_fix", NOW_MS, NOW_MS + 1, "failed")))])
    assert "“Fix the timer” did not help: the next remedy is due." in Page(desk.get("/cases/al_1").text).text


def test_a_talk_track_is_offered_in_the_other_languages_of_the_catalogue(store):
    store.put([told(alert())])
    said = {"de": "Ich stelle es um.", "en": "I am fixing it.", "fr": "Je le change."}
    application = desk_application(store, list[Outcome]().append, talks=lambda _, __: said)
    with TestClient(application, base_url=HOME, client=("127.0.0.1", 1)) as client:
        page = client.get("/cases/al_1").text
    assert '<blockquote lang="de">I am fixing it.</blockquote>' in page
    assert '<b>English</b></p><blockquote lang="en">I am fixing it.</blockquote>' in page
    assert '<b>fr</b></p><blockquote lang="fr">Je le change.</blockquote>' in page


def test_a_desk_without_a_deployment_says_so(desk):
    assert "no deployment tells it" in desk.get("/network").text


# Hostile text


def test_hostile_text_in_every_field_stays_text(served):
    evil = msgspec.convert(poisoned(msgspec.to_builtins(alert(incident_id="x"))), Alert)
    evil = replace(evil, cause=replace(evil.cause, kind=HOSTILE))
    shared = msgspec.convert(poisoned(msgspec.to_builtins(incident())), Incident)
    served.store.put([told(evil), told(replace(shared, incident_id="in_2", element_kind=HOSTILE))])
    for path in ("/", f"/?customer={quote(HOSTILE[:64])}", case_path(HOSTILE), "/network"):
        answer = served.client.get(path)
        assert answer.status_code == 200
        page = Page(answer.text)
        assert HOSTILE.replace("\u202e", "\N{REPLACEMENT CHARACTER}") in page.text
        assert "\u202e" not in page.text
        assert page.all("script") == [{"src": "/static/desk.js", "defer": None}]
        assert not page.all("img")
        assert_nothing_inline(page)


def assert_nothing_inline(page: Page) -> None:
    assert not page.all("style")
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    for name in ("href", "src", "action"):
        assert not [each[name] for _, each in page.tags if name in each and not each[name].startswith(("/", "?", "#"))]


def test_a_hostile_case_takes_an_outcome_too(served):
    evil = alert("a/b?c#d%2e", remedies=[replace(REMEDY, remedy_id=HOSTILE)])
    served.store.put([told(evil)])
    path = case_path(evil.alert_id)
    page = Page(served.client.get(path).text)
    assert {each["action"] for each in page.all("form")} == {f"{path}/actions"}
    form = {"token": page.values()["token"], "seen": "0", "what": "accepted", "remedy_id": HOSTILE}
    assert "Recorded: Accepted." in served.client.post(f"{path}/actions", data=form).text
    assert served.outcomes == [Outcome("a/b?c#d%2e", NOW_MS, "accepted", HOSTILE, "local")]


def test_every_page_is_free_of_inline_script_and_style_and_of_foreign_addresses(desk):
    desk.store.put([told(alert()), told(incident())])
    for path in ("/", "/cases/al_1", "/cases/none", "/network", "/audit", "/keys"):
        assert_nothing_inline(desk.get(path))


# Pictures


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**7)), max_size=10))
def test_no_two_marks_cover_each_other(calls):
    timeline = charts.timeline([CallEvidence(f"k{n}", end, "dropped", length) for n, (end, length) in enumerate(calls)])
    places = [(float(mark.x.rstrip("%")), mark.y) for mark in timeline.marks]
    assert [mark.call.end_ms for mark in timeline.marks] == sorted(end for end, _ in calls)
    for n, (x, y) in enumerate(places):
        assert 0.0 <= x <= 100.0
        assert 8 <= y < timeline.base < timeline.height
        assert all(other_y != y or abs(other_x - x) >= charts.APART_PERCENT - 0.011 for other_x, other_y in places[:n])


@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
def test_a_trend_stays_in_its_picture_and_higher_is_more(points):
    revisions = [
        Revision("stayline.alert.updated", at, alert(revision=n, churn=ChurnRisk(now, "low", usual, [], "m")))
        for n, (at, now, usual) in enumerate(points, 1)
    ]
    picture = charts.trend(revisions, lambda one: one.alert.churn.probability, lambda one: one.alert.churn.baseline)
    assert len(picture.dots) == len(points)
    assert len(picture.steps) == len(points) - 1
    for one in picture.dots:
        assert 0.0 <= float(one.x.rstrip("%")) <= 100.0
        assert 0.0 <= one.y <= picture.height
        assert all(one.y >= other.y or one.value > other.value for other in picture.dots)
    xs = [float(one.x.rstrip("%")) for one in picture.dots]
    assert xs == sorted(xs)


@given(st.dictionaries(st.tuples(st.integers(0, 35), st.sampled_from(SEVERITIES)), st.integers(1, 99), max_size=20))
def test_columns_are_as_high_as_their_counts(counts):
    picture = charts.bars(counts, 0, 10, 36)
    totals = [sum(counts.get((step, severity), 0) for severity in SEVERITIES) for step in range(36)]
    assert picture.most == max(totals)
    assert len(picture.bars) == len(counts)
    assert all(0 <= bar.y <= picture.height for bar in picture.bars)
    if counts:
        full = (charts.BARS_HEIGHT - 2) * sum(totals) / picture.most
        assert sum(bar.height for bar in picture.bars) == pytest.approx(full, abs=0.1 * len(counts))


@given(st.floats(1, 5))
def test_better_sound_stands_higher(mos):
    picture = charts.quality([CallEvidence("a", 1, "normal", 1, 1.0), CallEvidence("b", 2, "normal", 1, mos)])
    worst, other = picture.dots
    assert 0 <= other.y <= worst.y <= picture.height
    assert (other.y < picture.bands[0]) == (
        round(other.y, 1) < charts.quality([CallEvidence("c", 1, "x", 1, 4.03)]).dots[0].y
    )


def test_calls_without_measured_sound_have_no_picture_of_it():
    assert charts.quality([CallEvidence("a", 1, "normal", 1, None)]) is None


def test_incidents_outside_the_time_are_not_drawn():
    inside = incident("in_1", since_ms=50, cleared_ms=None)
    before = incident("in_2", since_ms=1, cleared_ms=10)
    partly = incident("in_3", since_ms=1, cleared_ms=60)
    spans = charts.spans([inside, before, partly], 20, 120)
    assert [(span.incident.incident_id, span.x, span.width, span.goes_on) for span in spans] == [
        ("in_1", "30.00%", "70.00%", True),
        ("in_3", "0.00%", "40.00%", False),
    ]


def test_drivers_pull_to_their_sides():
    drivers = [Driver("a", 0.8, ""), Driver("b", -0.4, "")]
    assert [charts.pull(one.effect, 0.8) for one in drivers] == [
        charts.Pull("50.0%", "50.0%"),
        charts.Pull("25.0%", "25.0%"),
    ]
