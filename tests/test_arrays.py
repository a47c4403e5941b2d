"""Records in an array are the records that they are on lines of their own, whatever is printed around them."""

import orjson
import pytest
from formats_kit import events, options, read, source
from hypothesis import given
from hypothesis import strategies as st

from schemas.deadletters import Reject

ONES = {
    name: [line for line in source(f"{name}/{case}").split(b"\n") if line.startswith(b"{") and line.endswith(b"}")]
    for name, case in (("freeswitch", "legs"), ("voipmonitor", "lines"))
}
PRINTED = [
    lambda ones: b"[" + b",".join(ones) + b"]",
    lambda ones: b"[\n  " + b",\n  ".join(ones) + b"\n]\n",
    lambda ones: b"\xef\xbb\xbf [ " + b" ,".join(ones) + b" ] ",
    lambda ones: orjson.dumps([orjson.loads(one) for one in ones], option=orjson.OPT_INDENT_2),
    lambda ones: b'{"success":true,"cdr":[' + b",".join(ones) + b"]}",
    lambda ones: b'{ "total": 12,\n "results": [\n' + b",\n".join(ones) + b'],\n "success" : true, "took": 0.3 }\n',
    lambda ones: b"\n".join(b'{"data":[' + one + b"]}" for one in ones),
    lambda ones: b"".join(b"[" + one + b"]" for one in ones) + b"[]",
]


def whole(name):
    """Return records as a database exports them, all of which begin alike."""
    found = read(name, b"\n".join(ONES[name]), options())
    kept = [one for one, item in zip(ONES[name], found, strict=True) if not isinstance(item, Reject)]
    return [b'{"_id":%d,' % number + one[1:] for number, one in enumerate(kept)]


@pytest.mark.parametrize("name", ONES)
@given(st.sampled_from(PRINTED), st.lists(st.integers(1, 4_000), max_size=6))
def test_an_array_gives_what_lines_give(name, printed, cuts):
    ones = whole(name)
    data = printed(ones)
    found = read(name, data, options(), sorted({cut % len(data) for cut in cuts}))
    assert events(found) == events(read(name, b"\n".join(ones), options()))
    assert [item.position for item in found] == list(range(1, len(ones) + 1))


@pytest.mark.parametrize("name", ONES)
@given(st.data())
def test_a_record_that_breaks_off_costs_no_other(name, data):
    ones = whole(name)
    at = data.draw(st.integers(0, len(ones) - 1))
    kept = data.draw(st.integers(10, len(ones[at]) - 1))
    torn = [*ones[:at], ones[at][:kept], *ones[at + 1 :]]
    found = read(name, b"[" + b",".join(torn) + b"]", options())
    assert sum(isinstance(item, Reject) for item in found) >= 1
    others = read(name, b"\n".join(one for one in ones if one is not ones[at]), options())
    assert {item.line for item in others} <= {item.line for item in found if not isinstance(item, Reject)}


def test_an_answer_that_tells_of_an_error_is_a_dead_letter():
    found = read("voipmonitor", b'{"success":false,"error":"no such user"}', options())
    assert [isinstance(item, Reject) for item in found] == [True]


@pytest.mark.parametrize(
    "answer", [b"[]", b'{"success":true,"cdr":[]}', b'{"success":true,"cdr":[],"total":0}\n', b" \n"]
)
def test_an_answer_without_records_is_nothing(answer):
    assert read("voipmonitor", answer, options()) == []
