"""Shapes: the same notification gives the same bytes, in the form that its receiver published, or none at all.

`python tests/test_shapes.py` writes the golden files anew: look at the difference before it is kept.
"""

import json
from datetime import datetime
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.alerts import Alert, Cause, Driver, Incident, Notification, Remedy, notification
from schemas.errors import ConfigError
from sinks.routing import UnreadableError
from sinks.shapes import FIXED, NAMES, Shape, pagerduty, samples, template
from sinks.shapes.samples import OPENED, SHARED

GOLDEN = Path(__file__).parent / "shapes"
SHAPES = [*FIXED.values(), pagerduty("0123456789abcdef0123456789abcdef")]
SAMPLES = samples()
ALERTS = {"tmf621", "tmf683", "salesforce_case", "servicenow_case"}
INCIDENTS = {"tmf642", "servicenow_incident"}
ORDERS = {"tmf622"}

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)


def rendered(shape: Shape) -> dict[str, object]:
    """What a shape makes of each sample, as JSON; null where it carries none."""
    made = {name: shape.render(sample) for name, sample in SAMPLES.items()}
    return {name: None if body is None else json.loads(body) for name, body in made.items()}


def checker(shape: Shape) -> jsonschema.Draft202012Validator:
    schema = json.loads((GOLDEN / f"{shape.name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def by_name(name: str) -> Shape:
    return next(shape for shape in SHAPES if shape.name == name)


def made(name: str, data: Alert | Incident, change: str = "opened") -> dict:
    kind = "alert" if isinstance(data, Alert) else "incident"
    return json.loads(by_name(name).render(notification("west", f"stayline.{kind}.{change}", data.detected_ms, data)))


class TestPublishedForms:
    def test_every_shape_but_the_template_has_its_files(self):
        assert {shape.name for shape in SHAPES} | {"template"} == set(NAMES)
        assert {path.name.partition(".")[0] for path in GOLDEN.glob("*.json")} == {shape.name for shape in SHAPES}

    @every_shape
    def test_samples_give_what_the_golden_file_holds(self, shape):
        assert rendered(shape) == json.loads((GOLDEN / f"{shape.name}.golden.json").read_text())

    @every_shape
    def test_what_it_gives_keeps_the_published_schema(self, shape):
        bodies = [body for body in rendered(shape).values() if body is not None]
        assert bodies
        for body in bodies:
            checker(shape).validate(body)

    @every_shape
    def test_the_schema_refuses_a_body_without_a_required_field(self, shape):
        validator = checker(shape)
        body = next(body for body in rendered(shape).values() if body is not None)
        node, required = (body[0], "labels") if isinstance(body, list) else (body, validator.schema["required"][-1])
        del node[required]
        assert not validator.is_valid(body)

    @every_shape
    def test_a_body_is_one_line_of_utf_8(self, shape):
        for sample in SAMPLES.values():
            body = shape.render(sample)
            assert body is None or (b"\n" not in body and body.decode())

    def test_cloudevents_is_the_body_untouched(self):
        odd = Notification("a-1", "stayline.alert.opened", "a", 1, 1, b"not even JSON\n")
        assert FIXED["cloudevents"].render(odd) is odd.body


class TestWhatIsCarried:
    @every_shape
    def test_a_shape_carries_all_of_a_kind_or_none(self, shape):
        carried = {name for name, body in rendered(shape).items() if body is not None}
        incidents = {"incident_opened", "incident_cleared", "probe_opened"}
        wanted = {*SAMPLES} - (incidents if shape.name in ALERTS else {*SAMPLES} - incidents)
        if shape.name in ORDERS:
            assert carried == {"ordered"}
        else:
            assert carried == (wanted if shape.name in ALERTS | INCIDENTS else {*SAMPLES})

    @pytest.mark.parametrize("shape", SHAPES[1:], ids=lambda shape: shape.name)
    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"data": {}}', b'{"data": null}'])
    @pytest.mark.parametrize("kind", ["stayline.alert.opened", "stayline.incident.opened"])
    def test_what_is_no_notification_is_refused_and_not_sent_half(self, shape, body, kind):
        with pytest.raises(UnreadableError, match="body must be a notification of the contract"):
            shape.render(Notification("a-1", kind, "a", 1, 1, body))

    @every_shape
    def test_every_revision_names_the_case_and_its_own_id(self, shape):
        for sample in SAMPLES.values():
            body = shape.render(sample)
            assert body is None or (sample.case.encode() in body and sample.id.encode() in body)


class TestStates:
    @pytest.mark.parametrize(
        ("name", "path", "opened", "resolved"),
        [
            ("tmf621", ("status",), "acknowledged", "resolved"),
            ("salesforce_case", ("records", 0, "Status"), "New", "Closed"),
            ("servicenow_case", ("state",), "1", "6"),
        ],
    )
    def test_the_state_is_told_at_the_ends_and_left_to_the_agents_in_between(self, name, path, opened, resolved):
        *above, key = path
        bodies = rendered(by_name(name))
        for step in above:
            bodies = {sample: body and body[step] for sample, body in bodies.items()}
        assert (bodies["opened"][key], bodies["resolved"][key]) == (opened, resolved)
        assert key not in bodies["updated"]

    def test_alertmanager_knows_the_end_as_that_of_the_alert_it_began(self):
        bodies = rendered(by_name("alertmanager"))
        assert bodies["opened"][0]["labels"] == bodies["updated"][0]["labels"] == bodies["resolved"][0]["labels"]
        ends = {name: datetime.fromisoformat(body[0]["endsAt"]) for name, body in bodies.items()}
        now = {name: datetime.fromisoformat(json.loads(one.body)["time"]) for name, one in SAMPLES.items()}
        assert {name for name in ends if ends[name] > now[name]} == {
            "opened", "updated", "incident_opened", "probe_opened",
        }  # fmt: skip

    def test_pagerduty_resolves_what_it_triggered(self):
        bodies = rendered(by_name("pagerduty"))
        assert [bodies[name]["event_action"] for name in ("opened", "updated", "resolved")] == [
            "trigger", "trigger", "resolve",
        ]  # fmt: skip
        assert len({bodies[name]["dedup_key"] for name in ("opened", "updated", "resolved")}) == 1

    def test_a_lying_probe_is_no_harm_to_the_service(self):
        alarm = rendered(by_name("tmf642"))["probe_opened"]
        assert (alarm["serviceAffecting"], alarm["perceivedSeverity"]) == (False, "warning")
        assert alarm["alarmType"] == "processingErrorAlarm"

    @pytest.mark.parametrize(("customers", "impact"), [(0, "3"), (9, "3"), (10, "2"), (99, "2"), (100, "1")])
    def test_the_impact_in_servicenow_is_by_customers(self, customers, impact):
        assert made("servicenow_incident", replace(SHARED, customers_affected=customers))["impact"] == impact

    @pytest.mark.parametrize(
        ("ratio", "severity"), [(0.24, "minor"), (0.25, "major"), (0.49, "major"), (0.5, "critical")]
    )
    def test_an_incident_is_as_severe_as_its_drops(self, ratio, severity):
        assert made("tmf642", replace(SHARED, drop_ratio=ratio))["perceivedSeverity"] == severity


LONG = st.text(min_size=1, max_size=3_000)


@given(text=LONG, say=LONG, driver=LONG, severity=st.sampled_from(["minor", "major", "critical"]))
def test_no_text_breaks_a_published_bound(text, say, driver, severity):
    alert = replace(
        OPENED,
        severity=severity,
        pattern=replace(OPENED.pattern, text=text),
        cause=Cause("x", 0.5, []),
        churn=replace(OPENED.churn, drivers=[Driver("f", 0.1, driver)]),
        remedies=[Remedy("r", text, say, driver, 0, 0)] * 12,
    )
    incident = replace(SHARED, text=text)
    for shape in SHAPES:
        for kind, data in (("stayline.alert.opened", alert), ("stayline.incident.opened", incident)):
            one = notification("west", kind, 1_000, data)
            body = shape.render(one)
            assert body == shape.render(one)
            if body is not None:
                VALIDATORS[shape.name].validate(json.loads(body))


VALIDATORS = {shape.name: checker(shape) for shape in SHAPES}


def drawn(text: str, content_type: str = "application/json") -> dict[str, bytes | None]:
    shape = template(text, content_type, SAMPLES)
    return {name: shape.render(sample) for name, sample in SAMPLES.items()}


class TestTemplates:
    def test_a_template_sees_the_envelope(self):
        text = '{"n": {{ id|tojson }}, "t": {{ type|tojson }}, "c": {{ data.customer_id|default(none)|tojson }}}'
        bodies = drawn(text)
        assert json.loads(bodies["opened"]) == {"n": "al_7f3c2b9e4d1a-1", "t": "stayline.alert.opened", "c": "tok_5b1d"}
        assert json.loads(bodies["probe_opened"])["c"] is None

    def test_texts_are_put_together_as_jinja_puts_them(self):
        text = "{{ id ~ 1 ~ none ~ 2.5 }}|{{ ['a', 1]|join(', ') }}|{{ 'a.b'|replace('.', '-') }}|{{ 'a' + 'b' }}"
        found = drawn(text + "|{{ [{'k': 1}, {'k': 'x'}]|join('/', attribute='k') }}|{{ 1 + 2 }}", "text/plain")[
            "opened"
        ]
        assert found.decode().partition("1None2.5|")[2] == "a, 1|a-b|ab|1/x|3"

    def test_a_quote_in_a_text_does_not_break_json(self):
        bodies = drawn("{% if data.remedies is defined %}{{ data.remedies|tojson }}{% endif %}")
        assert json.loads(bodies["opened"])[0]["say"] == OPENED.remedies[0].say

    def test_blanks_leave_a_notification_out(self):
        bodies = drawn("{% if type.startswith('stayline.alert.') %} {{ data.severity|tojson }} {% endif %}\n")
        assert bodies["opened"] == b'"major"'
        assert bodies["incident_opened"] is None

    def test_any_text_may_be_given_where_no_json_is_promised(self):
        assert drawn("{{ subject }}", "text/plain; charset=utf-8")["opened"] == b"tok_5b1d"

    def test_every_sample_it_fails_on_is_told(self):
        with pytest.raises(ConfigError) as caught:
            drawn("{{ data.customer_id|tojson }}")
        assert [problem.split(",")[0].rpartition(" ")[2] for problem in caught.value.problems] == [
            "incident_opened", "incident_cleared", "probe_opened",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("{{", "must be a Jinja template"),
            ("{{ nobody }}", "'nobody' is undefined"),
            ("{{ data.nothing }}", "no attribute 'nothing'"),
            ("{{ id }}", "must give JSON"),
            ("{{ 1 / 0 }}", "ZeroDivisionError"),
            ("{{ ''.__class__ }}", "unsafe"),
            ("{{ data.pop('severity') }}", "SecurityError"),
            ("{{ data.update({'a': 1}) }}", "SecurityError"),
            ("{{ '%s'|format(1) }}", "No filter named 'format'"),
            ("{{ [1, 2]|random }}", "No filter named 'random'"),
            ("{{ 'x'|center(100000000) }}", "No filter named 'center'"),
            ("{{ lipsum() }}", "'lipsum' is undefined"),
            ("{{ 'x' * 100000001 }}", "more than 10000"),
            ("{{ 100000001 * [1] }}", "more than 10000"),
            ("{{ 9 ** 999999999 }}", "must not use **"),
            ("{{ range(101)|list }}", "at most 100"),
            ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "must not use macro"),
            ("{% include 'x' %}", "must not use include"),
            ("{% import 'x' as x %}", "must not use import"),
            ("{% extends 'x' %}", "must not use extends"),
            ("{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}", "must not be recursive"),
            ("{% for a in '1' %}" * 4 + "{% endfor %}" * 4, "at most 3 within each other"),
            ("{% for a in range(100) %}{% for b in range(100) %}{{ id * 3 }}{% endfor %}{% endfor %}", "262144 bytes"),
            ("{{ '{:>99999999999}'.format(id) }}", "unsafe"),
            ("{{ id.ljust(99999999999) }}", "unsafe"),
            ("{{ '%99999999999d' % 1 }}", "must not use %"),
            ("{{ 7 % 2 }}{{ nobody }}", "'nobody' is undefined"),
            ("{% set x = id %}" + "{% set x = x ~ x %}" * 40, "characters or items by join"),
            ("{% set x = id %}" + "{% set x = x + x %}" * 40, "characters or items by +"),
            ("{% set x = [1] %}" + "{% set x = x + x %}" * 40, "characters or items by +"),
            ("{% set x = 'aa' %}" + "{% set x = x|replace('a', x) %}" * 40, "characters or items by replace"),
            ("{% set x = 'aa' %}" + "{% set x = [x, x]|join(x) %}" * 40, "characters or items by join"),
            ("{% set x = [id, [id ~ (id ~ 'x' * 6000)]] %}" + "{{ x[1][0] ~ x[1][0] }}" * 9, "characters or items"),
            ("{{ id.replace('', id * 99) }}", "unsafe"),
            ("{{ (id * 99).join(id * 99) }}", "unsafe"),
            ("{% set x %}{{ id }}{% endset %}", "must not use assignblock"),
            ("{% set x = [id] %}" + "{% set x = [x, x] %}" * 40 + "{{ x }}", "lists or tables of more than"),
            ("{% set x = {} %}" + "{% set x = {'a': x, 'b': x} %}" * 40 + "{{ x|tojson }}", "lists or tables of more"),
            ("{% set x = (id,) %}" + "{% set x = (x, x) %}" * 40 + "{{ x|upper }}", "lists or tables of more than"),
            ("x" * 65_537, "at most 65536 bytes"),
            ("{{ " + "(" * 3_000 + "1" + ")" * 3_000 + " }}", "must be a Jinja template"),
        ],
        ids=lambda value: value[:24],
    )
    def test_what_a_template_must_not_do_is_told_when_it_is_read(self, text, problem):
        with pytest.raises(ConfigError) as caught:
            drawn(text)
        assert any(problem in one for one in caught.value.problems), caught.value.problems

    def test_a_failure_that_no_sample_shows_is_one_of_that_notification(self):
        shape = template("{{ (6 / data.revision)|tojson }}", "application/json", SAMPLES)
        odd = replace(SAMPLES["opened"], body=SAMPLES["opened"].body.replace(b'"revision":1', b'"revision":0'))
        with pytest.raises(UnreadableError, match="ZeroDivisionError"):
            shape.render(odd)
        with pytest.raises(UnreadableError, match="must be JSON"):
            shape.render(replace(odd, body=b"{"))

    def test_a_template_changes_nothing_for_the_next_notification(self):
        shape = template("{{ data.drivers|default(id)|tojson }}", "application/json", SAMPLES)
        first = {name: shape.render(sample) for name, sample in SAMPLES.items()}
        assert first == {name: shape.render(sample) for name, sample in reversed(SAMPLES.items())}


def test_samples_are_of_every_type_and_read_back():
    assert {sample.type.removeprefix("stayline.") for sample in SAMPLES.values()} == {
        "alert.opened", "alert.updated", "alert.resolved", "incident.opened", "incident.cleared",
    }  # fmt: skip
    assert json.loads(SAMPLES["opened"].body)["data"]["alert_id"] == OPENED.alert_id


def test_a_template_that_asks_for_what_is_not_there_is_told_the_field_and_the_line():
    with pytest.raises(ConfigError) as refused:
        template('{\n"id": {{ data.alert_id | tojson }}\n}', "application/json", samples())
    assert any(
        "in line 2" in problem and "has no attribute 'alert_id'" in problem for problem in refused.value.problems
    )


if __name__ == "__main__":
    for each in SHAPES:
        text = json.dumps(rendered(each), indent=1, ensure_ascii=False)
        (GOLDEN / f"{each.name}.golden.json").write_text(text + "\n")
