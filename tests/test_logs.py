"""Log lines: one event each, without identities and secrets, and not too many of one sort."""

import json
import subprocess
import sys

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from dataflows.logs import LINES_PER_MINUTE, Limited, redacted
from dataflows.redaction import BLANK

SECRETS = [
    "sip:alice@pbx.example;transport=tls",
    "tel:+44-20-7946-0958",
    "+44 20 7946 0958",
    "+442079460958",
    "alice@pbx.example",
    "00442079460958",
    "(020) 7946 0958",
    "\uff0b442079460958",
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc",
    "eyJhbGciOiJIUzI1NiJ9.e30.abc",
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY-----",
]
HIDING = [
    "https://crm.example/hooks?token={}&page=2",
    "https://crm.example/hooks?id={}",
    "Authorization: Token {}",
    "proxy-authorization: ApiKey {} and more",
    "Cookie: session={}; theme=dark",
    "X-Api-Key: {}",
    "headers were {{'Authorization': 'Token {}', 'Accept': '*/*'}}",
    "headers were {{b'x-secret': b'{}'}}",
    '{{"client_secret":"{}","grant_type":"x"}}',
    "host=db user=desk password={} dbname=desk",
    "host=db user=desk password='{} and more' dbname=desk",
    "sasl.password={}",
    "STAYLINE_CRM_SECRET={}",
    "client_secret={}&grant_type=x",
    "routing_key = {}",
    "webhook-signature=v1,{}",
]
"""How a secret that looks like nothing is written down: by a name, an address, a header."""

HARMLESS = [
    "127.0.0.1:9100",
    "stayline.events[3]@1234567890",
    "000000000012.ndjson",
    "/var/lib/stayline/state",
    "https://crm.example/hooks/stayline",
    "2026-01-05T10:00:00.000Z",
    "001234567890.ndjson:5",
    "secret_env: must be the name of a variable, was not",
    "STAYLINE_TOKEN_KEY: must be set, was not",
]


def line(**fields):
    return redacted(None, "info", {"event": "x", **fields})


@pytest.mark.parametrize("secret", SECRETS)
def test_what_looks_like_an_identity_or_a_secret_is_blanked_wherever_it_stands(secret):
    for told in (line(error=f"refused {secret} twice"), line(error=ValueError(secret)), line(values=[secret])):
        assert secret not in json.dumps(told)
        assert BLANK in json.dumps(told)


@pytest.mark.parametrize("form", HIDING)
def test_what_stands_under_a_secret_s_name_is_blanked_whatever_it_looks_like(form):
    told = json.dumps(line(error=ValueError(form.format("aGVsbG8")), values=[form.format("aGVsbG8")]))
    assert "aGVsbG8" not in told
    assert "and more" not in told


@pytest.mark.parametrize("text", HARMLESS)
def test_what_an_operator_needs_stays(text):
    assert line(at=text)["at"] == text


@pytest.mark.parametrize("key", ["secret", "password", "token_key", "authorization", "api_key"])
def test_a_field_that_is_called_a_secret_is_blanked_whatever_it_holds(key):
    assert line(**{key: "anything"})[key] == BLANK


def test_a_password_in_an_address_is_blanked_and_the_address_stays():
    assert line(url="https://me:pw@crm.example/x")["url"] == f"https://{BLANK}crm.example/x"


def test_numbers_stay_numbers():
    assert line(records=5, share=0.5, stopped=True, none=None) == {
        "event": "x", "records": 5, "share": 0.5, "stopped": True, "none": None
    }  # fmt: skip


@given(st.lists(st.floats(0.0, 200.0), max_size=200))
def test_of_one_event_so_many_lines_a_minute_are_told_and_the_rest_counted(gaps_s):
    now_s = [0.0]
    limited = Limited(lambda: now_s[0])
    told = untold = 0
    for gap_s in gaps_s:
        now_s[0] += gap_s / 50
        try:
            found = limited(None, "info", {"event": "again"})
        except structlog.DropEvent:
            continue
        told += 1
        untold += found.get("untold", 0)
    assert told + untold <= len(gaps_s)
    assert told <= LINES_PER_MINUTE * (1 + now_s[0] / 60.0)
    now_s[0] += 60.0
    last = limited(None, "info", {"event": "again"})
    assert told + untold + last.get("untold", 0) == len(gaps_s)


def test_another_event_is_told_beside_one_that_comes_too_often():
    limited = Limited(lambda: 0.0)
    for _ in range(LINES_PER_MINUTE):
        limited(None, "info", {"event": "often"})
    with pytest.raises(structlog.DropEvent):
        limited(None, "info", {"event": "often"})
    assert limited(None, "info", {"event": "seldom"}) == {"event": "seldom"}


def test_a_line_is_one_json_object_with_its_event_level_and_time():
    done = subprocess.run(
        [sys.executable, "-c", "from dataflows.logs import log; log('test.happened', number=3)"],
        capture_output=True, check=True,
    )  # fmt: skip
    told = json.loads(done.stderr)
    assert (told["event"], told["level"], told["number"]) == ("test.happened", "info", 3)
    assert told["timestamp"].endswith("Z")


def test_what_libraries_and_threads_say_is_a_line_like_all_others():
    done = subprocess.run(
        [sys.executable, "-c", """
import logging, threading
from dataflows.logs import log
logging.getLogger("some.library").info("too little to tell")
logging.getLogger("some.library").warning("password=%s of +44 20 7946 0958", "hunter2")
try:
    raise ValueError("sip:alice@pbx.example")
except ValueError:
    logging.getLogger("some.library").exception("failed")
ended = threading.Thread(target=lambda: {}["+442079460958"], name="worker")
ended.start()
ended.join()
"""],
        capture_output=True, check=True,
    )  # fmt: skip
    warned, raised, ended = map(json.loads, done.stderr.splitlines())
    assert (warned["event"], warned["library"]) == ("library.problem", "some.library")
    assert warned["problem"] == f"password={BLANK} of {BLANK}"
    assert raised["trace"].splitlines()[-1] == f"ValueError: {BLANK}"
    assert (ended["event"], ended["thread"]) == ("thread.ended", "worker")
    assert "KeyError" in ended["trace"]
    assert b"7946" not in done.stderr.replace(b" ", b"")
