"""After `stayline forget` no byte of a customer is left in the state, and everybody else's is as it was."""

import base64
import shutil
import signal
import sys

import httpx2
import orjson
import pytest
from delivery_kit import RESET, SECRET, FakeClock, Receiver, Reply
from engine_kit import HOUR_MS, MONDAY_MS, alerts, batch, call, engine, told
from hypothesis import given
from hypothesis import strategies as st
from run_kit import Program, until

from dataflows import cli
from dataflows.commands.explain import explain
from dataflows.commands.forget import forget
from dataflows.commands.sought import Sought
from dataflows.config import load
from dataflows.deadletters import DeadLetterFile
from schemas.deadletters import DeadLetter, DeadReason
from schemas.errors import StateError
from schemas.formats.identity import Tokens
from schemas.text import key_of
from sinks.outbox import Outbox

CANARY, OTHER = "canary-customer-00042", "neighbour-00007"
CONFIG = """
[deployment]
name = "test"
[input]
kind = "http"
http = { listen = "127.0.0.1:0" }
[metrics]
listen = "127.0.0.1:0"
[desk]
listen = "127.0.0.1:0"
[[output]]
kind = "file"
path = "alerts.ndjson"
[[output]]
kind = "desk"
[[output]]
kind = "webhook"
name = "crm"
url = "%s"
secret_file = "secret"
allow_networks = ["127.0.0.0/8"]
"""


def events():
    """Trouble enough for a case of each of two, who call one another; and a record that breaks a rule."""
    for number in range(12):
        for customer, peer in ((CANARY, OTHER), (OTHER, CANARY)):
            yield call(customer, MONDAY_MS + number * HOUR_MS, dropped=True, peer_id=peer)
    yield {"type": "profile", "customer_id": CANARY, "at_ms": MONDAY_MS, "plan": "fibre", "tenure_days": 400}
    yield call(CANARY, MONDAY_MS + 20 * HOUR_MS, mos=7)


def traces(folder, names=(CANARY,)):
    """Return the files in which a customer stands, in any spelling."""
    found = {}
    for name in names:
        key = key_of(name)
        spellings = [name.encode(), key.to_bytes(8, "little"), key.to_bytes(8, "big"), str(key).encode()]
        # Three ways in which base64 may begin inside: each holds the middle in the same letters.
        spellings += [base64.b64encode(b"\0" * shift + name.encode())[4:-4] for shift in range(3)]
        for path in sorted(folder.rglob("*")):
            if path.is_file() and any(spelling in path.read_bytes() for spelling in spellings):
                found.setdefault(path.relative_to(folder).parts[0], []).append(name)
    return found


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A deployment that was killed while its webhook's receiver failed: something of both lies everywhere."""
    folder = tmp_path_factory.mktemp("forget")
    # What the program compiles is compiled here: it then answers within the patience of the tests.
    assert alerts(told(engine().apply(batch(events()))), CANARY)
    (folder / "secret").write_text(SECRET)
    with Receiver(lambda request, _: Reply() if CANARY.encode() in request.body else RESET) as receiver:
        (folder / "c.toml").write_text(CONFIG % receiver.url)
        program = Program(folder, "run", "-c", "c.toml", epoch_ms=200)
        address = program.address("events")
        body = b"\n".join(map(orjson.dumps, events()))
        assert httpx2.post(f"{address}/v1/events", content=body, trust_env=False).status_code == 202
        until(lambda: {OTHER, CANARY} <= {orjson.loads(r.body)["subject"] for r in receiver.requests}, "both alerts")
        until(lambda: CANARY in (folder / "alerts.ndjson").read_text(), "the canary's line")
        snapshots = folder / "state/engine"
        until(lambda: list(snapshots.glob("[0-9]*.state")), "a checkpoint")
        later = orjson.dumps(call(OTHER, MONDAY_MS + 30 * HOUR_MS))
        assert httpx2.post(f"{address}/v1/events", content=later, trust_env=False).status_code == 202
        until(lambda: len(list(snapshots.glob("[0-9]*.state"))) > 1, "another one")
        program.kill()
    return folder


@pytest.fixture
def deployed(stopped, tmp_path, monkeypatch):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_no_byte_of_the_customer_is_left_in_the_state_and_the_other_stays(deployed, monkeypatch, capfd):
    before = traces(deployed / "state", (CANARY, OTHER))
    for place in ("engine", "spool", "desk.sqlite3", "outbox.sqlite3", "dead-letters.ndjson"):
        assert CANARY in "".join(map(str, [names for part, names in before.items() if part.startswith(place)])), place
    monkeypatch.setattr(sys, "argv", ["stayline", "forget", CANARY, "-c", "c.toml"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capfd.readouterr().out
    assert ended.value.code == 0
    assert traces(deployed / "state") == {}
    assert set(traces(deployed / "state", (OTHER,))) >= {"engine", "spool", "desk.sqlite3", "outbox.sqlite3"}
    for line in (
        "erased from state/dead-letters.ndjson: 1 record\n",
        "erased from state/desk.sqlite3: 1 case\n",
        "erased from state/spool/000000000000.ndjson: 14 records, 12 far ends",
        "  output file: the lines in alerts.ndjson and in the files it was rotated to; of what is still known, about",
        "  output crm: what its receiver has been sent; of what is still known, ",
        "  records of this customer that come again: they are then taken as those of a new one",
    ):
        assert line in said
    config = load(deployed / "c.toml", {})
    assert explain(OTHER, config)
    with pytest.raises(StateError, match="must have called since the state began, has not"):
        explain(CANARY, config)


def test_a_run_goes_on_from_a_state_in_which_somebody_was_forgotten(deployed):
    forget(CANARY, load(deployed / "c.toml", {}), FakeClock())
    with Receiver() as receiver:
        (deployed / "c.toml").write_text(CONFIG % receiver.url)
        program = Program(deployed, "run", "-c", "c.toml")
        until(lambda: receiver.requests, "what was still to be delivered")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0, program.stderr()
    assert {orjson.loads(request.body)["subject"] for request in receiver.requests} == {OTHER}
    assert traces(deployed / "state") == {}


def test_half_written_files_of_a_killed_process_go_as_a_whole(deployed):
    for draft in ("engine/.000000000009.state", "spool/.000000000000.ndjson", ".dead-letters.ndjson"):
        (deployed / "state" / draft).write_text(CANARY)
    forget(CANARY, load(deployed / "c.toml", {}), FakeClock())
    assert traces(deployed / "state") == {}


def test_to_forget_twice_finds_nothing_the_second_time(deployed):
    config = load(deployed / "c.toml", {})
    assert forget(CANARY, config, FakeClock()).erased
    assert forget(CANARY, config, FakeClock()).erased == {}


@pytest.mark.parametrize("broken_off", [1, 3, 5])
def test_what_a_killed_forget_left_the_next_one_erases(deployed, broken_off):
    config = load(deployed / "c.toml", {})

    class Killed(BaseException):
        pass

    left = [broken_off]

    def report(_done):
        left[0] -= 1
        if not left[0]:
            raise Killed

    with pytest.raises(Killed):
        forget(CANARY, config, FakeClock(), report=report)
    assert traces(deployed / "state")
    forget(CANARY, config, FakeClock())
    assert traces(deployed / "state") == {}


def test_a_running_deployment_is_left_alone_and_says_what_to_do(deployed):
    config = load(deployed / "c.toml", {})
    program = Program(deployed, "run", "-c", "c.toml")
    program.address("metrics")
    with pytest.raises(StateError, match="another one is running on it: stop the deployment"):
        forget(CANARY, config, FakeClock())
    program.kill()
    assert traces(deployed / "state")


def test_without_a_state_nothing_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StateError, match="state: must be the state of a deployment, and there is none"):
        forget(CANARY, load(None, {}), FakeClock())
    assert list(tmp_path.iterdir()) == []


def test_packets_of_a_capture_are_left_as_they_are_and_named(deployed):
    given = (deployed / "c.toml").read_text().replace('kind = "http"', 'kind = "hep"').replace("http = {", "hep = {")
    (deployed / "c.toml").write_text(given)
    done = forget(CANARY, load(deployed / "c.toml", {}), FakeClock())
    assert not any("spool" in place for place in done.erased)
    assert any(one.startswith("packets in state/spool and calls still open in state/calls") for one in done.left)


def test_what_a_receiver_quoted_in_its_answer_goes_too(deployed):
    path = deployed / "state/outbox.sqlite3"
    outbox = Outbox.open(path, {"crm": 9}, FakeClock())
    with outbox._db.write() as db:
        db.execute("UPDATE output SET trouble = '500 no ' || ?", (CANARY,))
        db.execute("UPDATE delivery SET reply = '500 no ' || ?", (CANARY,))
    outbox.close()
    forget(CANARY, load(deployed / "c.toml", {}), FakeClock())
    assert traces(deployed / "state") == {}


class TestSought:
    def test_an_event_is_the_customers_by_either_end_and_an_outcome_by_its_case(self):
        sought = Sought("k1", ["al_1"])
        own, far, outcome = b'{"customer_id":"k1"}', b'{"customer_id":"k2","peer_id":"k1"}', b'{"alert_id":"al_1"}'
        assert sought.without(own) == (b" " * len(own), "record")
        assert sought.without(outcome) == (b" " * len(outcome), "record")
        rest, what = sought.without(far)
        assert (orjson.loads(rest), len(rest), what) == ({"customer_id": "k2", "peer_id": None}, len(far), "far end")
        for others in (b'{"customer_id":"k11","peer_id":"xk1"}', b'{"customer_id":"k2","call_id":"k1/77"}', b"{}", b""):
            assert sought.without(others) == (others, "")

    @pytest.mark.parametrize("record", [b'{"customer_id":"k1', b"a,k1,b", b"k1", b'"k1', b"<k1>"])
    def test_a_broken_record_is_the_customers_if_the_id_stands_in_it_as_a_word(self, record):
        assert Sought("k1").stands_in(record)
        assert not Sought("k").stands_in(record)
        assert not Sought("1").stands_in(record)

    def test_an_id_written_with_escapes_is_the_same_id(self):
        assert Sought("k1").stands_in(b'{"customer_id":"\\u006b1"}')

    def test_a_vendors_record_is_found_by_the_number_behind_the_token(self):
        tokens = Tokens(b"0123456789abcdef")
        customer = tokens.identity("+49 30 1234567")
        assert Sought(customer, (), tokens).stands_in(b"77;+49 30 1234567;2026-01-01 10:00:00;busy")
        assert Sought(customer, (), tokens).stands_in(b'from=<sip:+49301234567@pbx.example> to="x"')
        assert not Sought(customer, (), tokens).stands_in(b"77;+49 30 1234568;2026-01-01 10:00:00;busy")
        assert not Sought(customer).stands_in(b"77;+49 30 1234567")

    @given(
        st.dictionaries(
            st.text(max_size=5), st.text(max_size=9) | st.integers() | st.lists(st.text(max_size=5)), max_size=5
        ),
        st.text(min_size=1, max_size=4),
    )
    def test_what_is_left_of_a_line_is_as_long_and_names_nobody(self, event, customer):
        line = (
            orjson.dumps(event, option=orjson.OPT_NON_STR_KEYS)
            if all(not isinstance(value, int) or abs(value) < 2**53 for value in event.values())
            else b"{}"
        )
        sought = Sought(customer)
        rest, what = sought.without(line)
        assert len(rest) == len(line)
        assert not sought.stands_in(rest)
        assert (rest == line) == (what == "")


def test_a_dead_letter_with_the_number_of_a_customer_goes(deployed):
    tokens = Tokens(b"0123456789abcdef")
    letters = DeadLetterFile(deployed / "state/dead-letters.ndjson")
    for number, record in enumerate([b"1;0301234567;x", b"2;0309999999;x"]):
        letters.append([DeadLetter("file", f"f:{number}", DeadReason.NOT_JSON, "", base64.b64encode(record).decode())])
    forget(tokens.identity("0301234567"), load(deployed / "c.toml", {}), FakeClock(), tokens)
    assert [letter.at for _, letter in letters.read() if letter.source == "file"] == ["f:1"]
