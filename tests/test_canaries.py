"""Nothing that anybody could be called or traced by leaves ingest: not by an output, a log, a metric, a dead letter.

Every vendor's input is given with numbers, SIP URIs and addresses planted in sound and in broken records; then all
that a run and a conversion leave behind is searched for them, in every spelling that a program might use.
"""

import base64
import html
import random
import re
import sys
import unicodedata
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote

import orjson
import pytest
from formats_kit import CASES, FORMATS, KEY, options, read, source
from fuzz_kit import CSV, SEEDS, dialogs
from hep_kit import payload_at, reworded
from test_fuzz import mutated

from dataflows import cli, run
from dataflows.config import load
from schemas.errors import InputError
from schemas.formats import Converted
from schemas.formats.agents import agent_of
from schemas.formats.names import codec_of, place_of, reason_of
from schemas.formats.people import FREE, NAME, OWN, PRODUCT, somebody_in

NAMES = ("freeswitch", "asterisk", "kamailio", "cucm", "voipmonitor", "vqrtcpxr", "csv", "hep")
PLANTED = ("01632960001", "+44 1632 960001", "sip:alice@pbx.example", "10.20.30.40", "2001:db8::77", "0A1B2C3D4E5F")
NEEDLES = (
    "1632960", "632960001", "960001", "960002", "1632 960", "2079460", "79460001", "alice", "pbx.example", "192.0.2.",
    "10.20.30.40", "2001:db8", "0A1B2C3D4E5F", "A1B2C3D4", "cust-desk",
)  # fmt: skip
PACKED = (bytes([192, 0, 2, 10]), bytes([192, 0, 2, 20]), bytes([10, 20, 30, 40]))
"""Addresses as packets have them."""

MAP = """
[input.csv]
delimiter = ";"
decimal_comma = true
date_formats = ["iso", "%d/%m/%Y %H:%M"]
[input.csv.columns]
call_id = "id"
customer_id = "from"
start_ms = "at"
duration_s = "s"
loss_percent = "loss"
"""


def spellings(needle):
    """Give the bytes under which a text might be hiding, in lower case where case says nothing."""
    raw = needle.encode()
    yield raw.lower()
    yield needle.encode("utf-16-le").lower()
    yield raw[::-1].lower()
    yield raw.hex().encode()
    for shift in range(3):
        # In base64 a text looks different by where it stands; the characters that its neighbours share are left out.
        text = base64.b64encode(b"\0" * shift + raw)
        yield text[(shift * 8 + 5) // 6 : (shift + len(raw)) * 8 // 6].lower()


def found_in(data):
    """Return what of all planted things is in some bytes, `record_b64` of dead letters undone as well."""
    letters = [line for line in data.split(b"\n") if b"record_b64" in line]
    records = [base64.b64decode(orjson.loads(line)["record_b64"]) for line in letters]
    shown = b"\n".join([data, *records])
    low = shown.lower()
    texts = [needle for needle in NEEDLES if any(one in low for one in spellings(needle))]
    return texts + [address for address in PACKED if address in shown]


def left_in(folder, *known):
    """Return file -> what was found in it, of all files but the known ones."""
    files = [path for path in folder.rglob("*") if path.is_file() and path not in known]
    assert files
    return {path.name: found for path in files if (found := found_in(path.read_bytes()))}


def planted(name):
    """Return an input of that format: sound records, and some that are damaged or hold what they should not."""
    chance = random.Random(f"canary {name}")  # noqa: S311 - the seed makes the run the same every time
    if name == "hep":
        head = b"HEP3\0\x40" + PLANTED[2].encode() + bytes([10, 20, 30, 40])
        return b"".join([*SEEDS[name], head, *(mutated(seed, chance) for seed in SEEDS[name] for _ in range(20))])
    parts = list(SEEDS[name])
    for seed in SEEDS[name]:
        lines = seed.splitlines(keepends=True)
        for what in PLANTED:
            line = chance.choice(lines)
            at = chance.randrange(len(line))
            parts += [line[:at] + what.encode() + line[at:], what.encode() + b"\n", line[:at] + b"\n"]
        parts.append(mutated(seed, chance).decode("latin-1").encode("utf-16-le") + b"\n")
    return b"".join(parts)


def cut_off(number):
    """Return a leg of FreeSWITCH that was cut off: many of them are worth an alert."""
    begun_s = 1_767_346_200 + number * 10_000
    variables = {
        "direction": "inbound", "uuid": f"cut-{number}", "hangup_cause": "MEDIA_TIMEOUT", "sip_from_user": PLANTED[0],
        "sip_to_user": "01632960002", "start_uepoch": f"{begun_s}000000", "answer_uepoch": f"{begun_s + 5}000000",
        "end_uepoch": f"{begun_s + 95}000000", "sip_hangup_disposition": "send_bye",
    }  # fmt: skip
    return orjson.dumps({"variables": variables}) + b"\n"


@pytest.fixture(params=NAMES)
def deployment(request, tmp_path, monkeypatch):
    """A vendor's input, and a configuration with every output that needs no other machine."""
    monkeypatch.setenv("STAYLINE_TOKEN_KEY", KEY.decode())
    name = request.param
    source = tmp_path / "input"
    source.write_bytes(planted(name) + (b"".join(map(cut_off, range(60))) if name == "freeswitch" else b""))
    config = tmp_path / "c.toml"
    config.write_text(
        f'[input]\nformat = "{name}"\nfile = {{ paths = ["{source}"] }}\n'
        '[input.tokens]\ncountry = "44"\nnational_digits = 10\n'
        f"{MAP if name == 'csv' else ''}"
        f'[state]\ndirectory = "{tmp_path / "out" / "state"}"\n'
        f'[[output]]\nkind = "file"\nname = "file"\npath = "{tmp_path / "out" / "alerts.ndjson"}"\n'
        '[[output]]\nkind = "desk"\nname = "desk"\n[desk]\nlisten = "127.0.0.1:0"\n[metrics]\nlisten = "127.0.0.1:0"\n'
    )
    (tmp_path / "out").mkdir()
    return name, source, config


def test_nothing_leaves_a_run(deployment, tmp_path, monkeypatch, capfd):
    name, _, path = deployment
    made, pages, gauges, log = [], [], run.Gauges, run.log

    def logged(event, **fields):
        if event == "run.ended":
            pages.append(made[0].page())
        log(event, **fields)

    monkeypatch.setattr(run, "Gauges", lambda *given, **more: made.append(gauges(*given, **more)) or made[0])
    monkeypatch.setattr(run, "log", logged)
    run.run(load(path, {}), epoch=timedelta(milliseconds=50))
    assert left_in(tmp_path / "out") == {}
    assert found_in(pages[0]) == []
    assert b"stayline_" in pages[0]
    assert found_in("".join(capfd.readouterr()).encode()) == []
    letters = (tmp_path / "out" / "state" / "dead-letters.ndjson").read_bytes().splitlines()
    assert letters, "broken records were planted"
    if name == "freeswitch":
        assert (tmp_path / "out" / "alerts.ndjson").read_bytes().count(b'"subject":"tok_')


@pytest.mark.parametrize("command", ["convert", "replay", "doctor"])
def test_nothing_leaves_a_command(command, deployment, tmp_path, monkeypatch, capfd):
    name, source, path = deployment
    out = tmp_path / "out" / "events.ndjson"
    letters = f"{out}.dead.ndjson"
    given = {
        "convert": ["--format", name, str(source), str(out)],
        "replay": ["--format", name, str(source), "--alerts", str(out), "--dead-letters", letters],
        "doctor": [],
    }
    monkeypatch.setattr(sys, "argv", ["stayline", command, "-c", str(path), *given[command]])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = "".join(capfd.readouterr()).replace(str(tmp_path), "")
    assert ended.value.code == 0
    assert found_in(said.encode()) == []
    if command == "doctor":
        assert "dead letters" in said
    else:
        assert left_in(tmp_path / "out") == {}
        assert Path(letters).stat().st_size, "broken records were planted"
    assert command != "convert" or out.stat().st_size


def test_a_plant_is_found_in_every_spelling():
    for needle in NEEDLES:
        for hidden in (
            needle.encode(), needle.upper().encode(), needle.encode("utf-16-le"), needle.encode().hex().encode(),
            *(base64.b64encode(b"xyz"[:size] + needle.encode() + b"behind") for size in range(4)),
            orjson.dumps({"record_b64": base64.b64encode(b"-" + needle.encode()).decode()}),
        ):  # fmt: skip
            assert needle in found_in(b"..." + hidden + b"..." if b"record_b64" not in hidden else hidden)
    assert found_in(b"x" + PACKED[0] + b"y") == [PACKED[0]]
    assert found_in((FORMATS / "freeswitch" / "legs.ndjson").read_bytes()) == []


SPELT = (
    "01632960777", "+44-1632-960777", "01632_960777", "0 1 6 3 2 9 6 0 7 7 7", "01632\u2011960777", "01632\u00a0960777",
    "\uff10\uff11\uff16\uff13\uff12\uff19\uff16\uff10\uff17\uff17\uff17", "%2B441632960777", "mallory%40pbx.test",
    "sip:mallory@pbx.test", "198.51.100.77", "198-51-100-77", "198_51_100_77", "[2001:db8::77]", "0A-1B-2C-3D-4E-5F",
    "0A 1B 2C 3D 4E 5F", "0A1B.2C3D.4E5F", "0a1b2c3d4e5f", "0a1b2c-3d4e5f", "01632%20960%20777", "01632%2520960777",
    "0&#49;&#54;&#51;&#50;960777", "\\u0030\\u0031\\u0036\\u0033\\u0032960777", "0163\u200b296\u200b0777",
    "198\u300251\u3002100\u300277", "2001-db8--77", "\u2460\u2465\u2462\u2461\u2468\u2465\u24ea\u2466\u2466\u2466",
    "mallory\uff20pbx.test", "mallory&#64;pbx.test", "tel:960777;ext=777",
)  # fmt: skip
WHOLE = ("1632960777", "960777", "mallorypbx", "1985110077", "2001db877", "0a1b2c3d4e5f")
"""What is left of them without what stands between their digits."""


def people_in(text):
    """Return who is in a text, by undoing what one might do to hide there."""
    for _ in range(3):
        text = html.unescape(unquote(re.sub(r"\\u00(..)", r"%\1", text)))
    plain = re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", text).lower())
    return [what for what in WHOLE if what in plain]


def texts_of(items):
    """Give every text that leaves a format; a number in a column of numbers is a number."""
    for item in items:
        if isinstance(item, Converted):
            yield from (value for value in orjson.loads(item.line).values() if isinstance(value, str))
        else:
            yield item.detail
            yield item.record.decode("utf-8", "replace")


WORD = re.compile(rb'[^\s,;:="<>{}()\[\]/]+')


def reworded_inputs(case):
    """Give format, options, and an input with somebody in place of each of its words, spelt in turn in every way."""
    name, number = case.partition("/")[0], 0
    if name == "hep":
        for dialog in dialogs():
            for at, packet in enumerate(dialog.packets):
                payload = packet[payload_at(packet) + 6 :]
                for word in WORD.finditer(payload):
                    number += 1
                    planted_text = SPELT[number % len(SPELT)]
                    changed = payload[: word.start()] + planted_text.encode() + payload[word.end() :]
                    packets = [*dialog.packets[:at], reworded(packet, changed), *dialog.packets[at + 1 :]]
                    yield planted_text, b"".join(packets), options()
        return
    data, opts = (SEEDS["csv"][0], CSV) if name == "csv" else (source(case), options(case))
    for number, word in enumerate(WORD.finditer(data)):
        planted_text = SPELT[number % len(SPELT)]
        yield planted_text, data[: word.start()] + planted_text.encode() + data[word.end() :], opts


@pytest.mark.parametrize("case", [*CASES, "csv/rows", "hep/dialogs"])
def test_no_word_of_an_input_lets_anybody_through(case):
    for planted_text, data, opts in reworded_inputs(case):
        try:
            said = list(texts_of(read(case.partition("/")[0], data, opts)))
        except InputError as error:
            said = [str(error)]
        assert {text: found for text in said if (found := people_in(text))} == {}, planted_text


@pytest.mark.parametrize("spelt", SPELT)
def test_no_spelling_of_anybody_comes_through_a_name_a_reason_or_an_id(spelt):
    leg = orjson.loads(cut_off(1))
    leg["switchname"] = leg["variables"]["sip_gateway_name"] = f"core {spelt}"
    leg["variables"]["sip_reason"] = f'Q.850;cause=16;text="to {spelt}"'
    leg["variables"]["sip_user_agent"] = leg["variables"]["read_codec"] = f"Acme {spelt}"
    row = f'id;from;at;s;loss\n"to {spelt}";1;2026-01-02 09:30;60;0,5\n'.encode()
    items = [*read("freeswitch", orjson.dumps(leg) + b"\n"), *read("csv", row, CSV)]
    assert [type(item) for item in items] == [Converted, Converted]
    assert [text for text in texts_of(items) if people_in(text)] == []
    assert all(somebody_in(f"to {spelt}.", run) for run in (FREE, NAME, PRODUCT, OWN))


@pytest.mark.parametrize("spelt", ["ext 204", "x204", "Ext.: 20", "extension-2041", "ramal 31"])
def test_an_extension_that_says_so_is_somebody_s(spelt):
    tokens = options().tokens
    assert place_of(tokens, f"gw {spelt}") == tokens.opaque(f"gw {spelt}")
    assert agent_of(f"Acme Phone {spelt}/1.2.3") == agent_of(None)
    assert reason_of(f'Q.850;cause=16;text="to {spelt}"') == "Q.850;cause=16"
    assert place_of(tokens, "204") == tokens.opaque("204")


@pytest.mark.parametrize(
    "name", ["olt-1024/2/17", "olt-1-0-3-12", "cell-40213", "MX204", "4x100G-7", "bras01.lon2.example.net", "facade"]
)
def test_a_name_that_an_operator_gave_is_told_as_it_is(name):
    assert not somebody_in(name, OWN)


def test_a_codec_is_one_that_is_known():
    assert codec_of("mallory") is None
    assert codec_of("G.711 u-law") == "PCMU"


def test_people_are_found_in_every_spelling():
    assert all(people_in(f"core {spelt}.") for spelt in SPELT)
