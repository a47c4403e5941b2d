"""The desk in a real browser: two people at once, a server that dies, hostile text, keyboard, screen readers, sizes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe
from desk_kit import HOSTILE, NOW_MS, FakeClock, alert, chromium, incident, poisoned, serving, told
from msgspec.structs import replace
from playwright.sync_api import Browser, Page, expect, sync_playwright
from run_kit import until
from test_desk_pages import FIGURES

from schemas.alerts import Alert, Incident
from sinks.desk.app import desk_application
from sinks.desk.people import People
from sinks.desk.sqlite import SqliteDatabase
from sinks.desk.store import DeskStore
from sinks.desk.words import case_path

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

SERVE = """
import sys
from pathlib import Path
import uvicorn
from sinks.desk.app import desk_application
from sinks.desk.sqlite import SqliteDatabase
from sinks.desk.store import DeskStore
store = DeskStore(SqliteDatabase(Path(sys.argv[1])), lambda: 1)
uvicorn.run(desk_application(store, lambda _: None), port=int(sys.argv[2]), log_level="error")
"""

WATCH = """
window.heard = [];
const Real = window.EventSource;
window.EventSource = class extends Real {
  constructor(...given) {
    super(...given);
    this.addEventListener("change", (event) => window.heard.push(Number(event.lastEventId)));
  }
};
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # No sandbox: in a container, and as root, Chromium has none to offer; it opens our own pages alone.
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(browser) -> Iterator[Page]:
    """A tab that fails the test if a script of it does."""
    with opened(browser) as page:
        yield page


@contextlib.contextmanager
def opened(browser: Browser, **options) -> Iterator[Page]:
    failures: list[str] = []
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, "locale": "en-GB", **options})
    page = context.new_page()
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("dialog", lambda dialog: (failures.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda said: failures.append(said.text) if "Content Security Policy" in said.text else None)
    yield page
    context.close()
    assert failures == []


class Known:
    def identity(self, _):
        return "+47 22 00 00 00"


@pytest.fixture
def house(store) -> Iterator[str]:
    """A desk without login that has something of everything."""
    store.put([told(alert(f"al_{n}", value_at_risk_minor=1_000 * n, customer_id=f"c000{n}")) for n in range(1, 6)])
    store.put([told(alert("al_5", revision=2, value_at_risk_minor=5_000, severity="critical"), "updated", NOW_MS + 9)])
    store.put([told(incident())])
    with serving(desk_application(store, lambda _: None, figures=lambda: FIGURES, resolver=Known())) as base:
        yield base


@pytest.fixture
def office(store) -> Iterator[tuple[str, People]]:
    """A desk with login, and its people."""
    store.put([told(alert())])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with serving(desk_application(store, lambda _: None, public_url=url, resolver=Known()), port):
        yield url, People(store)


def log_in(page: Page, base: str, people: People, who: str) -> None:
    session = people.open_session(who, who.title(), "csr")
    page.context.add_cookies([{"name": "stayline-desk", "value": session, "url": base}])


def shown(page: Page) -> list[str]:
    return page.eval_on_selector_all("li[data-case]", "all => all.map(one => one.dataset.case)")


# Two people, one case


def test_of_two_who_press_at_once_the_second_is_told_and_sees_what_was_done(browser, office):
    base, people = office
    with opened(browser) as ann, opened(browser) as bob:
        for page, who in ((ann, "ann"), (bob, "bob")):
            log_in(page, base, people, who)
            page.goto(f"{base}/cases/al_1")
        ann.get_by_role("button", name="Take").click()
        expect(ann.get_by_role("status").filter(has_text="Recorded: Taken.")).to_be_visible()
        with bob.expect_response(lambda answer: answer.request.method == "POST") as answered:
            bob.get_by_role("button", name="Contacted").click()
        assert answered.value.status == 409
        expect(bob.get_by_role("alert")).to_contain_text("A colleague was quicker")
        expect(bob.locator("header.head")).to_contain_text("Taken by ann")
        expect(bob.locator("#tried")).to_contain_text("Taken")
        # The page that says so is fresh: now it goes through.
        bob.get_by_role("button", name="Contacted").click()
        expect(bob.get_by_role("status").filter(has_text="Recorded: Contacted.")).to_be_visible()


# What is live


def test_what_is_new_waits_and_nothing_moves_under_the_pointer(tab, house, store):
    tab.goto(house)
    before = shown(tab)
    assert before == ["al_5", "al_4", "al_3", "al_2", "al_1"]
    store.put([told(alert("al_new", value_at_risk_minor=10**6))])
    store.put([told(alert("al_1", revision=2, severity="critical", value_at_risk_minor=1_000), "updated")])
    news = tab.get_by_role("button", name="1 new: show")
    expect(news).to_be_visible()
    # What is on the page is brought up to date where it stands.
    expect(tab.locator("li[data-case=al_1]")).to_contain_text("Critical")
    expect(tab.locator("h1")).to_have_text("6 customers to call")
    assert shown(tab) == before
    assert tab.title().startswith("(1)")
    news.click()
    expect(tab.locator("li[data-case=al_new]")).to_be_visible()
    assert shown(tab) == ["al_new", *before]
    expect(news).to_be_hidden()


def test_a_case_under_the_pointer_stays_there_though_those_above_it_grow(browser, house, store):
    with opened(browser, viewport={"width": 1280, "height": 500}) as page:
        page.goto(house)
        under = page.locator("li[data-case=al_2]")
        under.hover()
        before = under.bounding_box()["y"]
        pattern = replace(alert().pattern, text="Calls are cut off. " * 20)
        grown = alert("al_4", revision=2, customer_id="c0004", value_at_risk_minor=4_000, pattern=pattern)
        store.put([told(grown, "updated")])
        expect(page.locator("li[data-case=al_4]")).to_contain_text("Calls are cut off. Calls")
        assert under.bounding_box()["y"] == pytest.approx(before, abs=1.0)


def test_what_is_live_can_be_paused(tab, house, store):
    tab.goto(house)
    expect(tab.locator("#live")).to_have_attribute("data-state", "on")
    tab.get_by_role("button", name="Pause").click()
    expect(tab.locator("#live")).to_contain_text("Paused")
    store.put([told(alert("al_new", value_at_risk_minor=10**6))])
    with tab.expect_request("**/events?since=*"):
        tab.get_by_role("button", name="Go on").click()
    expect(tab.get_by_role("button", name="1 new: show")).to_be_visible()
    expect(tab.locator("h1")).to_have_text("6 customers to call")


@pytest.mark.parametrize("path", ["/", "/network"])
def test_an_incident_goes_on_counting_without_news_of_it(browser, store, path):
    told_of = incident()
    store.put([told(told_of)])
    now = {"customers": 137}
    figures = lambda: replace(  # noqa: E731
        FIGURES, incidents=[replace(told_of, customers_affected=now["customers"])]
    )
    with serving(desk_application(store, lambda _: None, figures=figures)) as base, opened(browser) as page:
        page.clock.install()
        page.goto(base + path)
        expect(page.locator("main")).to_contain_text("137 customers covered")
        expect(page.locator("#live")).to_have_attribute("data-state", "on")
        now["customers"] = 211
        page.clock.run_for(20_000)
        expect(page.locator("main")).to_contain_text("211 customers covered")
        assert not page.locator("#news").is_visible()


def test_a_page_whose_session_is_over_says_so_and_leads_to_the_login(browser, office):
    base, people = office
    with opened(browser) as page:
        log_in(page, base, people, "ann")
        page.goto(base)
        expect(page.locator("#live")).to_have_attribute("data-state", "on")
        people.end_session(page.context.cookies()[0]["value"])
        expect(page.locator("#live")).to_contain_text("Your session is over", timeout=20_000)
        with page.expect_request("**/login?back=%2F"):
            page.get_by_role("button", name="Log in").click()


def test_a_case_that_changes_says_so_on_its_card(tab, house, store):
    tab.goto(f"{house}/cases/al_1")
    store.put([told(alert("al_1", revision=2, severity="critical", value_at_risk_minor=1_000), "updated")])
    store.put([told(alert("al_2", revision=2), "updated")])
    tab.get_by_role("button", name="This case has changed: show").click()
    expect(tab.locator("header.head")).to_contain_text("Critical")


def test_a_server_that_is_killed_and_started_again_leaves_no_gap_and_no_double(browser, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = tmp_path / "desk.db"

    def put(*names):
        with contextlib.closing(DeskStore(SqliteDatabase(path), FakeClock())) as store:
            store.put([told(alert(name, value_at_risk_minor=len(name))) for name in names])

    @contextlib.contextmanager
    def server():
        process = subprocess.Popen([sys.executable, "-c", SERVE, path, str(port)], env=os.environ)
        try:
            until(lambda: answers(port), "the server")
            yield process
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()

    put("a")
    with opened(browser) as page:
        page.add_init_script(WATCH)
        with server():
            page.goto(f"http://127.0.0.1:{port}/")
            expect(page.locator("#live")).to_have_attribute("data-state", "on")
            put("bb", "ccc")
            # Another process wrote: this one's stream looks again when it is woken, at the latest by its next reader.
        expect(page.locator("#live")).to_have_attribute("data-state", "lost")
        put("dddd")
        with server():
            expect(page.locator("#live")).to_have_attribute("data-state", "on", timeout=20_000)
            page.get_by_role("button", name="3 new: show").click(timeout=20_000)
            expect(page.locator("li[data-case=dddd]")).to_be_visible()
            assert shown(page) == ["dddd", "ccc", "bb", "a"]
            assert page.evaluate("window.heard") == [2, 3, 4]


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


def test_ten_thousand_open_cases_are_one_page_of_fifty(tab, store):
    store.put([told(alert(f"al_{n:05}", value_at_risk_minor=n)) for n in range(10_000)])
    with serving(desk_application(store, lambda _: None)) as base:
        answer = tab.goto(base)
        assert len(answer.body()) < 200_000
        expect(tab.locator("h1")).to_have_text("10,000 customers to call")
        assert shown(tab) == [f"al_{n:05}" for n in range(9_999, 9_949, -1)]
        store.put([told(alert("al_09990", revision=2, severity="critical", value_at_risk_minor=9_990), "updated")])
        expect(tab.locator("li[data-case=al_09990]")).to_contain_text("Critical")
        assert tab.evaluate("document.querySelectorAll('*').length") < 5_000


# What must not be there


def test_hostile_text_in_every_field_runs_nowhere(tab, store):
    evil = msgspec.convert(poisoned(msgspec.to_builtins(alert(incident_id="x"))), Alert)
    shared = msgspec.convert(poisoned(msgspec.to_builtins(incident())), Incident)
    store.put([told(evil), told(replace(shared, incident_id="in_2", element_kind=HOSTILE))])
    with serving(desk_application(store, lambda _: None)) as base:
        for path in ("/", case_path(HOSTILE), "/network"):
            tab.goto(base + path)
            assert tab.evaluate("document.scripts.length") == 1
            assert tab.evaluate("document.images.length") == 0
        store.put([told(replace(evil, revision=2), "updated")])
        tab.goto(base)
        store.put([told(replace(evil, revision=3, severity="critical"), "updated")])
        expect(tab.locator("li[data-case]")).to_contain_text("Critical")
        assert tab.evaluate("document.scripts.length") == 1


def test_no_identity_is_in_the_page_before_it_is_asked_for_or_after(browser, office):
    base, people = office
    with opened(browser) as page:
        log_in(page, base, people, "ann")
        for path in ("/", "/cases/al_1", "/network"):
            page.goto(base + path)
            assert "+47 22" not in page.content()
        page.goto(f"{base}/cases/al_1")
        page.get_by_label("Reason").fill("To call them back")
        page.get_by_role("button", name="Show identity").click()
        expect(page.locator(".identity")).to_have_text("+47 22 00 00 00")
        assert "+47" not in page.url
        assert page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])").count("+47") == 0
        page.goto(f"{base}/cases/al_1")
        assert "+47 22" not in page.content()
    assert [(one.who, one.about) for one in people.audit(99, 9)] == [("ann", "c0001")]


# For everybody


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
def test_every_page_is_accessible_and_fits(browser, house, scheme, width):
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    with opened(browser, **options) as page:
        for path in ("/", "/cases/al_5", "/network", "/keys", "/audit", "/cases/none", "/?severity=minor"):
            page.goto(house + path)
            found = Axe().run(page, options={"runOnly": RULES}).response["violations"]
            told_of = [(path, one["id"], [node["target"] for node in one["nodes"]]) for one in found]
            assert told_of == []
            assert page.evaluate("document.scrollingElement.scrollWidth") <= width, path


@pytest.mark.parametrize("locale", ["de-DE", "zh-CN"])
def test_the_browser_chooses_the_language_and_times_follow(browser, house, locale):
    with opened(browser, locale=locale, timezone_id="Asia/Tokyo") as page:
        page.goto(house)
        assert page.evaluate("document.documentElement.lang") == locale[:2]
        expect(page.locator("#zone")).to_contain_text("Asia/Tokyo")
        found = Axe().run(page, options={"runOnly": RULES}).response["violations"]
        assert found == []
        page.get_by_role("link", name="English").click()
        expect(page.locator("h1")).to_have_text("5 customers to call")


def test_a_case_is_worked_from_the_keyboard_alone(tab, house, store):
    tab.goto(house)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("Enter")
    for _ in range(60):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.closest('li[data-case]') !== null"):
            break
    tab.keyboard.press("Enter")
    expect(tab.locator("main.card")).to_be_visible()
    for _ in range(40):
        tab.keyboard.press("Tab")
        focused = tab.evaluate("[document.activeElement.value, getComputedStyle(document.activeElement).outlineStyle]")
        assert focused[1] != "none"
        if focused[0] == "contacted":
            break
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("status").filter(has_text="Recorded: Contacted.")).to_be_visible()
    assert store.counts().stages["contacted"] == 1


def test_nothing_glides_for_those_who_do_not_want_it(browser, house):
    for motion, expected in (("reduce", "0s"), ("no-preference", "0.12s")):
        with opened(browser, reduced_motion=motion) as page:
            page.goto(house)
            shown_as = page.evaluate("getComputedStyle(document.querySelector('.case')).transitionDuration")
            assert shown_as.split(",")[0] == expected


def test_pages_work_without_a_script(browser, house):
    with opened(browser, java_script_enabled=False) as page:
        page.goto(house)
        page.get_by_role("link", name="4 of 5 calls.").first.click()
        page.get_by_role("button", name="Unreachable").click()
        expect(page.get_by_role("status").filter(has_text="Could not be reached")).to_be_visible()
        expect(page.locator("#zone")).to_have_text("Times are UTC.")
