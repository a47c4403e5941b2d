"""The desk of a deployment: where outcomes go, what the deployment tells of itself, who knows customers, its server."""

from itertools import islice
from types import SimpleNamespace

import orjson
import pytest
from desk_kit import NOW_MS, FakeClock, alert, serving, told
from msgspec.structs import replace
from run_kit import until
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from bench.simulator.live import EVENING, story
from dataflows.commands.demo import SPEED
from dataflows.desk import figures_of, outcomes_of
from dataflows.inputs.files import Place
from dataflows.inputs.resubmitted import Resubmitted
from dataflows.inputs.spool import Spool
from detectors.engine import RiskEngine
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.settings import Settings
from schemas.decode import Decoder, decode_record
from schemas.errors import StateError
from schemas.events import Outcome
from sinks.desk.postgres import PostgresDatabase
from sinks.desk.resolver import HttpResolver
from sinks.desk.store import DeskStore
from sinks.outbox import Outbox
from sinks.outputs import OutputDownError

OUTCOMES = [Outcome("al_1", NOW_MS, "accepted", "timer_fix", "ann"), Outcome("al_1", NOW_MS + 1, "fixed")]


def test_outcomes_become_events_of_an_input_that_takes_events(tmp_path):
    spool = Spool(tmp_path / "spool")
    take = outcomes_of(spool, Resubmitted(tmp_path / "outcomes"), [])
    for outcome in OUTCOMES:
        take(outcome)
    cut = next(spool.read(Place()))
    assert [decode_record(line) for line in cut.chunk.data.splitlines()] == OUTCOMES
    assert not (tmp_path / "outcomes").exists()


def test_outcomes_are_read_beside_an_input_that_takes_none(tmp_path):
    records = Resubmitted(tmp_path / "outcomes")
    take = outcomes_of(None, records, [])
    for outcome in OUTCOMES:
        take(outcome)
    lines = b"".join(cut.chunk.data for cut in records.read(Place(), ends=True) if cut is not None)
    assert [decode_record(line) for line in lines.splitlines()] == OUTCOMES
    assert b"null" not in lines


@pytest.mark.parametrize(
    ("newest_ms", "at_ms"), [(NOW_MS - 86_400_000, NOW_MS - 86_400_000), (NOW_MS + 5, NOW_MS), (-1, NOW_MS), (0, 0)]
)
def test_an_outcome_does_not_take_detection_past_events_that_are_still_to_come(tmp_path, newest_ms, at_ms):
    records = Resubmitted(tmp_path / "outcomes")
    engines = [SimpleNamespace(clock_ms=one) for one in (newest_ms, -1)]
    outcomes_of(None, records, engines)(OUTCOMES[0])
    lines = next(cut for cut in records.read(Place(), ends=True) if cut is not None).chunk.data
    assert decode_record(lines) == replace(OUTCOMES[0], at_ms=at_ms)


def test_outcomes_that_nobody_would_read_are_refused():
    with pytest.raises(StateError, match="must come by Kafka"):
        outcomes_of(None, None, [])(OUTCOMES[0])


def test_a_deployment_tells_of_its_elements_its_budget_and_its_model(tmp_path):
    engine = RiskEngine(Settings("demo"), Catalogue.load(default_catalogue_text()))
    first_ms, first = next(story(EVENING, SPEED))
    lines = [first]
    for at_ms, line in islice(story(EVENING, SPEED), 1, None):
        if at_ms > first_ms + 150 * 60_000:
            break
        lines.append(line)
    notifications = engine.apply(Decoder().decode(b"".join(lines)))
    data = [orjson.loads(one.body) for one in notifications]
    opened = [one for one in data if one["type"] == "stayline.alert.opened"]
    broken = {one["data"]["element_id"] for one in data if one["type"] == "stayline.incident.opened"}
    outbox = Outbox.open(tmp_path / "outbox.db", {"crm": 9_999}, FakeClock())
    outbox.put(notifications)
    figures = figures_of([engine], outbox)()
    outbox.close()
    assert sum(figures.records.values()) == len(lines)
    assert figures.pending == {"crm": len(notifications)}
    assert figures.told_today == len(opened) > 0
    assert broken
    assert broken <= {one.element_id for one in figures.suspects if one.has_incident}
    assert all(one.excess > 0 and 0 < one.ratio <= 1 for one in figures.suspects)
    assert [one.excess for one in figures.suspects] == sorted((one.excess for one in figures.suspects), reverse=True)
    assert (figures.model.labels, figures.model.bins) == (0, [])


def test_a_deployment_without_a_partition_yet_has_nothing_to_tell(tmp_path):
    outbox = Outbox.open(tmp_path / "outbox.db", {}, FakeClock())
    figures = figures_of([], outbox)()
    outbox.close()
    assert (figures.customers, figures.suspects, figures.model.labels) == (0, [], 0)


@pytest.fixture
def directory():
    """A service that knows one customer, and answers badly about others."""
    asked = []

    async def who(request):
        asked.append((request.headers["authorization"], await request.json()))
        customer = asked[-1][1]["customer_id"]
        answers = {
            "c1": JSONResponse({"identity": "Anna, +47 22 00 00 00"}),
            "broken": PlainTextResponse("no JSON"),
            "list": JSONResponse(["Anna"]),
            "number": JSONResponse({"identity": 7}),
            "down": PlainTextResponse("", 500),
            "moved": PlainTextResponse("", 302, {"location": "http://127.0.0.1:9/"}),
        }
        return answers.get(customer, PlainTextResponse("", 404))

    with serving(Starlette(routes=[Route("/who", who, methods=["POST"])])) as base:
        yield f"{base}/who", asked


def test_an_identity_is_asked_for_with_the_key_and_the_token_alone(directory):
    address, asked = directory
    assert HttpResolver(address, "key").identity("c1") == "Anna, +47 22 00 00 00"
    assert HttpResolver(address, "key").identity("c2") is None
    assert asked == [("Bearer key", {"customer_id": "c1"}), ("Bearer key", {"customer_id": "c2"})]


@pytest.mark.parametrize("customer", ["broken", "list", "number", "down", "moved"])
def test_what_is_no_identity_is_not_shown(directory, customer):
    with pytest.raises(OutputDownError, match="must answer with an identity"):
        HttpResolver(directory[0], "key").identity(customer)
    with pytest.raises(OutputDownError, match="must answer with an identity"):
        HttpResolver("http://127.0.0.1:9/who", "key").identity("c1")


def test_a_database_server_that_comes_back_is_used_again(postgres):
    store = DeskStore(PostgresDatabase(postgres.fresh()), FakeClock())
    store.put([told(alert("al_1"))])
    postgres.stop()
    with pytest.raises(OutputDownError):
        store.put([told(alert("al_2"))])
    postgres.start()

    def came_back():
        try:
            return store.put([told(alert("al_2"))]) or True
        except OutputDownError:
            return False

    until(came_back, "the database server")
    assert [change.case_id for change in store.changes(0)] == ["al_1", "al_2"]
    store.close()
