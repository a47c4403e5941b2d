"""Notifications on their way to an output: routed by its rule, held for better hours, put in its shape, never lost."""

import datetime as dt
import json
import random
from pathlib import Path

import pytest
from delivery_kit import (
    LOOPBACK,
    SECRET,
    FakeClock,
    MemoryCases,
    MemoryStream,
    Receiver,
    Reply,
    again_in,
    delivered,
    run_out,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from standardwebhooks import Webhook

from dataflows import cli
from dataflows.config import load, resolve_secrets
from dataflows.config.treatments import template_problems, treatments
from schemas.alerts import Notification, notification
from schemas.errors import ConfigError
from sinks.breaker import Breaker
from sinks.dispatcher import Dispatcher
from sinks.file import FileOutput
from sinks.outbox import Outbox
from sinks.outputs import State, Undeliverable
from sinks.queues import Ended, Queue
from sinks.routing import DAY_MS, ContactCap, QuietHours, Rule
from sinks.shapes import CLOUDEVENTS, FIXED, samples, template
from sinks.shapes.samples import OPENED
from sinks.treatment import Aside, Treatment
from sinks.webhook import WebhookOutput

HOUR_MS = 3_600_000
NIGHT_MS = 1_767_744_000_000  # 7 January 2026, 00:00 UTC
BACKLOG = 10_000


def alert(case: str, revision: int = 1, severity: str = "major", customer: str = "k1") -> Notification:
    kind = {1: "opened", 9: "resolved"}.get(revision, "updated")
    data = replace(OPENED, alert_id=case, revision=revision, severity=severity, customer_id=customer)
    return notification("west", f"stayline.alert.{kind}", 1_000 * revision, data)


@pytest.fixture
def clock():
    return FakeClock(NIGHT_MS + 12 * HOUR_MS)


@pytest.fixture
def outbox(tmp_path, clock):
    opened = Outbox.open(tmp_path / "state" / "outbox.db", {"crm": BACKLOG, "file": BACKLOG}, clock)
    yield opened
    opened.close()


def dispatcher(outbox, clock, treatment, *outputs) -> Dispatcher:
    chosen = {output.name: treatment for output in outputs}
    return Dispatcher(outbox, outputs, clock, random.Random(7), treatments=chosen)  # noqa: S311  seeded, not secret


def deliver(outbox, clock, treatment, output) -> None:
    run_out(dispatcher(outbox, clock, treatment, output), clock)


class TestFilters:
    @pytest.mark.parametrize(
        "kind", [MemoryStream, lambda: MemoryCases(delivered, name="file")], ids=["stream", "cases"]
    )
    @pytest.mark.parametrize("at_once", [True, False])
    def test_a_case_is_told_from_its_first_wanted_revision_to_its_end(self, outbox, clock, kind, at_once):
        put = [
            alert("a", 1, "minor"), alert("a", 2, "major"), alert("b", 1, "minor"),
            alert("a", 3, "minor"), alert("b", 9, "minor"), alert("a", 9, "minor"),
        ]  # fmt: skip
        output = kind()
        for batch in [put] if at_once else [[one] for one in put]:
            outbox.put(batch)
            deliver(outbox, clock, Treatment(Rule(severity_min="major")), output)
        sent = output.lines if isinstance(output, MemoryStream) else [identity for identity, _ in output.attempts]
        assert sent == ["a-2", "a-3", "a-9"]
        stats = outbox.stats().outputs["file"]
        assert (stats.delivered, stats.skipped, stats.pending) == (3, 3, 0)

    def test_what_was_told_is_known_when_its_deliveries_are_pruned(self, outbox, clock):
        crm, treatment = MemoryCases(delivered), Treatment(Rule(severity_min="major"))
        outbox.put([alert("a", 1, "critical")])
        run_out(dispatcher(outbox, clock, treatment, crm, MemoryStream()), clock)
        clock.now_ms += 30 * DAY_MS
        assert outbox.prune(clock() - 7 * DAY_MS) == 1
        outbox.put([alert("a", 9, "minor")])
        deliver(outbox, clock, treatment, crm)
        assert [identity for identity, _ in crm.attempts] == ["a-1", "a-9"]

    def test_a_rule_that_comes_later_knows_what_was_told_before(self, outbox, clock):
        crm = MemoryCases(delivered)
        outbox.put([alert("a", 1, "minor")])
        deliver(outbox, clock, Treatment(), crm)
        outbox.put([alert("a", 2, "minor"), alert("b", 1, "minor")])
        deliver(outbox, clock, Treatment(Rule(severity_min="major")), crm)
        assert [identity for identity, _ in crm.attempts] == ["a-1", "a-2"]

    def test_a_backlog_of_what_nobody_wants_is_gone_through_in_few_transactions(self, outbox, clock, monkeypatch):
        outbox.put([alert(f"c{n}", 1, "minor", f"k{n}") for n in range(1_000)] + [alert("wanted", 1, "critical")])
        crm, turns, put_aside = MemoryCases(delivered), [], Queue.put_aside
        monkeypatch.setattr(Queue, "put_aside", lambda self, *given: (turns.append(1), put_aside(self, *given)))
        deliver(outbox, clock, Treatment(Rule(severity_min="major")), crm)
        assert [identity for identity, _ in crm.attempts] == ["wanted-1"]
        assert len(turns) < 20

    def test_newest_only_keeps_the_newest_that_is_wanted(self, outbox, clock):
        rule = Rule(types=frozenset({"stayline.alert.opened", "stayline.alert.resolved"}))
        crm = MemoryCases(delivered, newest_only=True)
        outbox.put([alert("a", 1), alert("a", 2), alert("b", 1), alert("b", 2), alert("b", 9)])
        deliver(outbox, clock, Treatment(rule), crm)
        assert sorted(identity for identity, _ in crm.attempts) == ["a-1", "b-9"]
        stats = outbox.stats().outputs["crm"]
        assert (stats.delivered, stats.superseded, stats.skipped) == (2, 2, 1)


class TestHolds:
    QUIET = Treatment(Rule(quiet=QuietHours(21 * 60, 8 * 60, "UTC")))

    def test_quiet_hours_hold_everything_in_order_visibly_until_they_end(self, outbox, clock):
        clock.now_ms = NIGHT_MS
        crm = MemoryCases(delivered)
        outbox.put([alert("a", 1), alert("a", 2), alert("b", 1)])
        night = dispatcher(outbox, clock, self.QUIET, crm)
        assert night.deliver_due() == NIGHT_MS + 8 * HOUR_MS
        assert crm.attempts == []
        stats = outbox.stats().outputs["crm"]
        # The second revision waits behind the first, which is held.
        assert (stats.pending, stats.held) == (3, {"quiet_hours": 2})
        run_out(night, clock)
        assert {at_ms for _, at_ms in crm.attempts} == {NIGHT_MS + 8 * HOUR_MS}
        assert sorted(identity for identity, _ in crm.attempts) == ["a-1", "a-2", "b-1"]
        assert outbox.stats().outputs["crm"].held == {}

    def test_an_attempt_that_fails_before_the_night_is_made_again_after_it(self, outbox, clock):
        clock.now_ms = NIGHT_MS + 21 * HOUR_MS - 1_000
        crm = MemoryCases(lambda d, now_ms: again_in(60_000)(d, now_ms) if d.attempts == 0 else delivered(d, now_ms))
        outbox.put([alert("a", 1)])
        deliver(outbox, clock, self.QUIET, crm)
        assert [at_ms for _, at_ms in crm.attempts] == [NIGHT_MS + 21 * HOUR_MS - 1_000, NIGHT_MS + 32 * HOUR_MS]

    def test_what_was_held_and_then_fails_is_held_no_more(self, outbox, clock):
        outbox.put([alert("a", 1)])
        queue, now_ms = outbox.queue("crm"), clock()
        (due,) = queue.due(now_ms, 1, set())
        queue.put_aside([(due, Aside(State.PENDING, now_ms + 5, "quiet_hours"))], now_ms)
        assert outbox.stats().outputs["crm"].held == {"quiet_hours": 1}
        assert queue.due(now_ms + 4, 1, set()) == []
        (due,) = queue.due(now_ms + 5, 1, set())
        queue.settle([Ended(due, again_in(HOUR_MS)(due, now_ms), now_ms)], now_ms, Breaker())
        assert (outbox.stats().outputs["crm"].pending, outbox.stats().outputs["crm"].held) == (1, {})

    def test_a_cap_holds_new_cases_of_a_customer_and_nothing_else(self, outbox, clock):
        crm, treatment = MemoryCases(delivered), Treatment(Rule(cap=ContactCap(1, 7)))
        began_ms = clock()
        outbox.put([alert("a", 1), alert("b", 1), alert("a", 2), alert("c", 1, customer="k2"), alert("d", 1)])
        outbox.put([samples()["incident_opened"]])
        capped = dispatcher(outbox, clock, treatment, crm)
        capped.deliver_due()
        assert sorted(identity for identity, _ in crm.attempts) == ["a-1", "a-2", "c-1", "in_02-1"]
        assert outbox.stats().outputs["crm"].held == {"contact_cap": 2}
        run_out(capped, clock)
        days = {identity: (at_ms - began_ms) / DAY_MS for identity, at_ms in crm.attempts}
        assert (days["b-1"], days["d-1"]) == (7, 14)
        assert outbox.stats().outputs["crm"].pending == 0

    @settings(max_examples=20, deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 30)), max_size=12),
        st.integers(1, 2),
        st.integers(1, 3),
        st.integers(),
    )
    def test_no_customer_is_contacted_more_often_than_the_cap_whatever_fails(
        self, tmp_path_factory, puts, most, days, seed
    ):
        clock, first, rng = FakeClock(), {}, random.Random(seed)  # noqa: S311  seeded, not secret

        def answer(delivery, now_ms):
            if rng.random() < 0.4:
                return again_in(rng.randrange(1, 9 * HOUR_MS))(delivery, now_ms)
            case = delivery.notification.case
            first.setdefault(case, now_ms)
            return delivered(delivery, now_ms)

        path = tmp_path_factory.mktemp("cap") / "o.db"
        outbox = Outbox.open(path, {"crm": BACKLOG}, clock)
        for n, (customer, wait_h) in enumerate(puts):
            clock.now_ms += wait_h * HOUR_MS
            outbox.put([alert(f"case{n}", 1, customer=customer), alert(f"case{n}", 2, customer=customer)])
        deliver(outbox, clock, Treatment(Rule(cap=ContactCap(most, days))), MemoryCases(answer))
        stats = outbox.stats().outputs["crm"]
        outbox.close()
        assert (stats.pending, stats.delivered) == (0, 2 * len(puts))
        for customer in "abcd":
            contacts = sorted(first[f"case{n}"] for n, (one, _) in enumerate(puts) if one == customer)
            for earlier, later in zip(contacts, contacts[most:], strict=False):
                assert later - earlier >= days * DAY_MS

    def test_what_is_held_is_decided_anew_when_the_rule_has_changed(self, outbox, clock):
        clock.now_ms = NIGHT_MS
        crm = MemoryCases(delivered)
        outbox.put([alert("a", 1)])
        dispatcher(outbox, clock, self.QUIET, crm).deliver_due()
        deliver(outbox, clock, Treatment(), crm)
        assert crm.attempts == [("a-1", NIGHT_MS)]

    def test_a_stream_is_a_record_and_holds_nothing_back(self, outbox, clock):
        with pytest.raises(ConfigError, match="must be a webhook to hold anything back"):
            dispatcher(outbox, clock, self.QUIET, MemoryStream())

    def test_a_forgotten_customer_is_no_contact_any_more(self, outbox, clock):
        crm, treatment = MemoryCases(delivered), Treatment(Rule(cap=ContactCap(1, 7)))
        outbox.put([alert("a", 1, customer="CANARY")])
        deliver(outbox, clock, treatment, crm)
        assert outbox.queue("crm").told("a", "CANARY").contacts_ms == (clock(),)
        outbox.forget("CANARY")
        assert outbox.queue("crm").told("a", "CANARY").contacts_ms == ()
        assert not any(b"CANARY" in path.read_bytes() for path in outbox.path.parent.iterdir())


TMF621 = Treatment(shape=FIXED["tmf621"])


class TestShapes:
    def test_a_webhook_signs_the_shaped_bytes_under_the_notifications_id(self, outbox, clock):
        clock.now_ms = int(dt.datetime.now(dt.UTC).timestamp() * 1_000)  # noqa: TID251  the library looks at its own
        one = alert("a", 1)
        outbox.put([one, samples()["incident_opened"]])
        answers = iter([Reply(503), Reply(200)])
        with Receiver(lambda _r, _n: next(answers)) as receiver:
            shape = FIXED["tmf621"]
            crm = WebhookOutput("crm", receiver.url, [SECRET], allow_networks=LOOPBACK, content_type=shape.content_type)
            first = dispatcher(outbox, clock, TMF621, crm)
            clock.now_ms = first.deliver_due()
            first.deliver_due()
        assert [request.id for request in receiver.requests] == [one.id, one.id]
        for request in receiver.requests:
            assert request.body == shape.render(one)
            assert request.headers["content-type"] == "application/json"
            Webhook(SECRET).verify(request.body, request.headers)
        stats = outbox.stats().outputs["crm"]
        assert (stats.delivered, stats.skipped, stats.dead) == (1, 1, 0)

    def test_a_file_holds_shaped_lines_and_nothing_of_what_is_not_carried(self, outbox, clock, tmp_path):
        outbox.put([*samples().values()])
        deliver(outbox, clock, TMF621, FileOutput(tmp_path / "tickets.ndjson"))
        tickets = [json.loads(line) for line in (tmp_path / "tickets.ndjson").read_bytes().splitlines()]
        assert [ticket.get("status") for ticket in tickets] == ["acknowledged", None, "resolved", "resolved"]
        assert outbox.stats().outputs["file"].skipped == 3

    @pytest.mark.parametrize("stream", [True, False])
    def test_what_cannot_be_shaped_is_one_dead_letter_and_is_shaped_anew_when_replayed(self, outbox, clock, stream):
        put = [alert("a", 1), alert("a", 2), alert("b", 1)]
        text = "{%% if data.revision == 2 %%}{{ %s }}{%% else %%}{{ id|tojson }}{%% endif %%}"
        broken, mended = (template(text % body, "application/json", {}) for body in ("nobody", "2"))
        output = MemoryStream() if stream else MemoryCases(delivered, name="file")
        outbox.put(put)
        deliver(outbox, clock, Treatment(shape=broken), output)
        (dead,) = outbox.undelivered.list("file")
        assert (dead.id, dead.reason) == ("a-2", Undeliverable.MALFORMED)
        assert "'nobody' is undefined" in dead.reply
        assert outbox.undelivered.show("file", "a-2")[1] == put[1].body
        assert outbox.undelivered.replay("file", ["a-2"], clock()) == 1
        deliver(outbox, clock, Treatment(shape=mended), output)
        sent = output.lines if stream else [identity for identity, _ in output.attempts]
        assert sorted(sent) == ["a-1", "a-2", "b-1"]
        assert outbox.stats().outputs["file"].dead == 0

    def test_a_body_that_cannot_be_read_is_a_dead_letter_of_outputs_that_must_read_it(self, outbox, clock):
        odd = replace(alert("a", 1), body=b"[]")
        outbox.put([odd])
        crm, file = MemoryCases(delivered), MemoryStream()
        treated = {"crm": Treatment(Rule(severity_min="major"))}
        run_out(Dispatcher(outbox, [crm, file], clock, random.Random(7), treatments=treated), clock)  # noqa: S311
        assert (crm.attempts, file.lines) == ([], ["a-1"])
        assert outbox.undelivered.list("crm")[0].reason is Undeliverable.MALFORMED

    def test_without_treatment_the_body_is_not_looked_at(self, outbox, clock):
        outbox.put([replace(alert("a", 1), body=b"\xff\x00")])
        crm = MemoryCases(delivered)
        deliver(outbox, clock, Treatment(), crm)
        assert len(crm.attempts) == 1


HOOK = '[[output]]\nkind = "webhook"\nname = "crm"\nurl = "https://crm.example/"\nsecret_env = "CRM"\n'
KEY = "0123456789abcdefghijklmnopqrstuv"


def configured(tmp_path: Path, text: str):
    path = tmp_path / "stayline.toml"
    path.write_text(text)
    return load(path, {})


class TestConfiguration:
    def test_every_key_becomes_a_rule(self, tmp_path):
        text = HOOK + (
            'quiet = { hours = "21:30-08:00", zone = "Europe/Oslo" }\ncontact_cap = { contacts = 2, days = 30 }\n'
            'shape = "servicenow_case"\n[output.only]\ntypes = ["stayline.alert.opened"]\nseverity_min = "major"\n'
            'regions = ["north", "unknown"]\nsegments = ["gold"]\nbands = ["high", "raised"]\n'
        )
        assert treatments(configured(tmp_path, text), {})["crm"] == Treatment(
            Rule(
                types=frozenset({"stayline.alert.opened"}),
                severity_min="major",
                regions=frozenset({"north", "unknown"}),
                segments=frozenset({"gold"}),
                bands=frozenset({"high", "raised"}),
                quiet=QuietHours(21 * 60 + 30, 8 * 60, "Europe/Oslo"),
                cap=ContactCap(2, 30),
            ),
            FIXED["servicenow_case"],
        )

    def test_the_documented_example_is_read(self, tmp_path):
        page = (Path(__file__).parents[1] / "docs/deployment.md").read_text()
        (example,) = [block.split("```")[0] for block in page.split("```toml\n")[1:] if "contact_cap" in block]
        treatment = treatments(configured(tmp_path, HOOK + example), {})["crm"]
        assert treatment.shape is FIXED["servicenow_case"]
        assert treatment.rule.cap == ContactCap(1, 7)
        assert treatment.rule.bands == {"high", "raised"}

    def test_an_output_that_says_nothing_gets_everything_as_it_is(self, tmp_path):
        text = HOOK + '[[output]]\nkind = "file"\npath = "a"\n[[output]]\nkind = "desk"\n'
        made = treatments(configured(tmp_path, text), {})
        assert made == {name: Treatment(Rule(), CLOUDEVENTS) for name in ("crm", "file", "desk")}

    def test_pagerduty_s_key_comes_from_the_environment_and_is_not_told(self, tmp_path):
        config = configured(tmp_path, HOOK + 'shape = "pagerduty"\npagerduty = { secret_env = "PD" }\n')
        for key, problem in (
            (None, "PD is not set"),
            (KEY[:-1], "had 31 characters"),
            ("%" * 32, "letters and digits"),
        ):
            with pytest.raises(ConfigError, match=problem) as caught:
                resolve_secrets(config, {"CRM": SECRET} | ({} if key is None else {"PD": key}))
            assert key is None or key not in str(caught.value)
        secrets = resolve_secrets(config, {"CRM": SECRET, "PD": KEY})
        assert KEY not in repr(secrets)
        shape = treatments(config, secrets.routing_keys)["crm"].shape
        assert json.loads(shape.render(alert("a", 1)))["routing_key"] == KEY

    @pytest.mark.parametrize(
        ("content", "more", "problem"),
        [
            (None, "", "must be a file that can be read"),
            (b"\xff", "", "must be UTF-8"),
            (b"{{ id }", "", "must be a Jinja template"),
            (b"{{ id }}", "", "must give JSON"),
            (b"{{ data.customer_id|tojson }}", "", "renders the sample incident_opened"),
            (b"{{ id|tojson }}", "", None),
            (b"{{ id }}", 'content_type = "text/plain"\n', None),
        ],
    )
    def test_check_tries_a_template_on_samples_and_run_refuses_what_it_finds(self, tmp_path, content, more, problem):
        path = tmp_path / "crm.jinja"
        if content is not None:
            path.write_bytes(content)
        config = configured(tmp_path, HOOK + f'shape = "template"\ntemplate_file = "{path}"\n{more}')
        found = template_problems(config)
        assert bool(found) == (problem is not None)
        assert all(one.startswith(f"output.0.template_file: {path} ") for one in found)
        assert problem is None or problem in found[0]
        if problem is not None:
            with pytest.raises(ConfigError):
                treatments(config, {})

    def test_a_template_for_a_file_must_give_one_line(self, tmp_path):
        path = tmp_path / "two.jinja"
        path.write_text('{"a":\n{{ id|tojson }}}')
        text = f'[[output]]\nkind = "file"\npath = "a"\nshape = "template"\ntemplate_file = "{path}"\n'
        assert "must give one line" in template_problems(configured(tmp_path, text))[0]
        assert template_problems(configured(tmp_path, text.replace('"file"\npath = "a"', HOOK[18:-1]))) == []

    def test_check_shows_routing_and_shape_and_what_is_wrong_with_a_template(self, tmp_path, monkeypatch, capsys):
        path = tmp_path / "c.toml"
        path.write_text(HOOK + 'shape = "template"\ntemplate_file = "none.jinja"\nquiet = { hours = "22:00-06:00" }\n')
        monkeypatch.setattr("sys.argv", ["stayline", "check", "-c", str(path)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert ended.value.code == 2
        assert all(
            line in out for line in ('shape = "template"', "[output.quiet]", 'hours = "22:00-06:00"', "[output.only]")
        )
        assert "output.0.template_file: none.jinja must be a file that can be read" in err
