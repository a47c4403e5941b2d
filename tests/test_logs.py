"""Log lines: one event each, without identities and secrets, and not too many of one sort."""

import json
import subprocess
import sys

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from dataflows.logs import BLANK, LINES_PER_MINUTE, Limited, redacted

SECRETS = [
    "sip:alice@pbx.example;transport=tls",
    "tel:+44-20-7946-0958",
    "+44 20 7946 0958",
    "+442079460958",
    "alice@pbx.example",
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc",
]
HARMLESS = [
    "127.0.0.1:9100",
    "stayline.events[3]@1234567890",
    "000000000012.ndjson",
    "/var/lib/stayline/state",
    "https://crm.example/hooks/stayline",
    "2026-01-05T10:00:00.000Z",
]


def line(**fields):
    return redacted(None, "info", {"event": "x", **fields})


@pytest.mark.parametrize("secret", SECRETS)
def test_what_looks_like_an_identity_or_a_secret_is_blanked_wherever_it_stands(secret):
    for told in (line(error=f"refused {secret} twice"), line(error=ValueError(secret)), line(values=[secret])):
        assert secret not in json.dumps(told)
        assert BLANK in json.dumps(told)


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
