import base64
import contextlib
import copy
import json
import math
import tomllib
from functools import reduce
from operator import getitem
from pathlib import Path
from unittest.mock import patch

import annotated_types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from dataflows.config import (
    Config,
    format_options,
    load,
    render,
    resolve_secrets,
    resolve_token_key,
    runnable,
    toml,
    with_format,
)
from dataflows.config import settings as tables
from dataflows.config.kinds import Address, owns, parse_address
from schemas.errors import ConfigError

CONFIGS = Path(__file__).parent / "config"
FULL = CONFIGS / "full.toml"
EXAMPLE = Path(__file__).parents[1] / "docs/examples/billing-cdr.toml"
BAD = sorted(CONFIGS.glob("*.bad.toml"))
SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()


def written(tmp_path, text):
    path = tmp_path / "stayline.toml"
    path.write_text(text)
    return path


def problems_of(path, environ=None):
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {})
    return caught.value.problems


def leaves(node, path=()):
    """Every key of rendered tables with its path; lists of tables are walked, other lists are values."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in pairs:
        tables = isinstance(value, list) and value and isinstance(value[0], dict)
        if isinstance(value, dict) or tables:
            yield from leaves(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value


def as_variable(path):
    return "STAYLINE_" + "__".join(path).upper()


def as_text(value):
    return value if isinstance(value, str) else json.dumps(value)


class TestReading:
    def test_the_contract_s_example_is_read_as_it_stands(self):
        config = load(FULL, {})
        assert config.deployment.name == "west"
        assert config.input.kafka.topics == ("stayline.events",)
        assert config.input.http.listen == Address("127.0.0.1", 8090)
        assert config.state.directory == Path("state")
        assert [output.name for output in config.output] == ["crm", "kafka"]
        assert (config.desk.listen.port, config.metrics.listen.port) == (8080, 9100)

    def test_an_empty_file_gives_the_contract_s_defaults(self, tmp_path):
        config = load(written(tmp_path, ""), {})
        assert config == load(None, {})
        known = {"directory": "state", "customers_max": 2_000_000, "idle_days": 90}
        assert config.state.model_dump(exclude_none=True) == known
        assert (config.detection.alerts_per_day_max, config.detection.lateness_s) == (200, 300)
        assert config.detection.false_alarm_days == 10_000
        assert (config.desk, config.metrics, config.output) == (None, None, ())

    def test_a_configuration_cannot_be_changed(self):
        with pytest.raises(ValidationError):
            load(FULL, {}).state.idle_days = 1

    def test_a_file_that_is_not_there_is_a_problem_of_the_configuration(self, tmp_path):
        assert "must be a file that can be read" in problems_of(tmp_path / "none.toml")[0]

    @pytest.mark.parametrize("path", BAD, ids=lambda path: path.name.removesuffix(".bad.toml"))
    def test_a_bad_file_is_refused_with_exactly_its_problems(self, path):
        head = path.read_bytes().decode("latin-1").splitlines()
        expected = [line.removeprefix("# problem: ") for line in head if line.startswith("# problem: ")]
        found = [problem.removeprefix(f"{path}: ") for problem in problems_of(path)]
        assert [text[: len(start)] for text, start in zip(found, expected, strict=True)] == expected

    @pytest.mark.parametrize("path", BAD, ids=lambda path: path.name.removesuffix(".bad.toml"))
    def test_no_problem_tells_a_secret(self, path):
        assert not any(part in text for text in problems_of(path) for part in ("TEhJ", "whsec_"))

    def test_problems_of_every_section_are_told_at_once(self, tmp_path):
        text = '[state]\nidle_days = 0\n[detection]\nlateness_s = "x"\n[[output]]\nkind = "fax"\n[pager]\n'
        found = problems_of(written(tmp_path, text), {"STAYLINE_DESK__PORT": "1"})
        keys = ["STAYLINE_DESK__PORT", "state.idle_days", "detection.lateness_s", "output.0.kind", "pager"]
        assert [problem.split(":")[0] for problem in found] == keys


def places(node, path=()):
    """Every place in rendered tables."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from places(value, (*path, key))


WHOLE = [tomllib.loads(render(load(path, {}))) for path in (FULL, EXAMPLE)]
ODD = [0, -1, "", "x", [], [1], ["a"], [[]], {}, {"a": 1}, [{}], [{"a": []}], True, 1.5, 2**70, math.inf, "\0"]


class TestAnything:
    @settings(max_examples=300)
    @given(st.sampled_from([(table, place) for table in WHOLE for place in places(table)]), st.sampled_from(ODD))
    def test_whatever_stands_at_a_key_is_taken_or_refused_with_a_reason(self, where, value):
        table, (*above, last) = where
        raw = copy.deepcopy(table)
        reduce(getitem, above, raw)[last] = value
        with patch("dataflows.config._read", lambda _: raw), contextlib.suppress(ConfigError):
            config = load(FULL, {})
            with patch("dataflows.config._read", lambda _: tomllib.loads(render(config))):
                assert load(FULL, {}) == config


def bounded_fields():
    for model in vars(tables).values():
        if isinstance(model, type) and issubclass(model, BaseModel):
            for name, field in model.model_fields.items():
                limits = {type(rule): rule for rule in field.metadata}
                if annotated_types.Ge in limits:
                    yield pytest.param(model, name, limits, id=f"{model.__name__}.{name}")


class TestBounds:
    @pytest.mark.parametrize(("model", "name", "limits"), list(bounded_fields()))
    def test_a_number_is_taken_at_its_bounds_and_refused_beyond(self, model, name, limits):
        low, high = limits[annotated_types.Ge].ge, limits[annotated_types.Le].le
        refused = {}
        for value in (low - 1, low, high, high + 1):
            try:
                model.model_validate_json(json.dumps({name: value}))
                refused[value] = False
            except ValidationError as error:
                refused[value] = any(one["loc"] == (name,) for one in error.errors())
        assert refused == {low - 1: True, low: False, high: False, high + 1: True}

    @given(st.text(max_size=30) | st.builds("{}:{}".format, st.text(max_size=10), st.integers(-9, 99_999)))
    def test_an_address_is_read_back_to_itself_or_refused(self, text):
        try:
            address = parse_address(text)
        except ValueError:
            return
        assert 0 <= address.port <= 65_535
        assert parse_address(str(address)) == address

    def test_an_ipv6_address_stands_in_brackets(self):
        assert parse_address("[::1]:0") == Address("::1", 0)
        assert str(Address("::1", 80)) == "[::1]:80"


SCALARS = (
    st.text() | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
)
ARRAYS = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=4)
TABLES = st.recursive(
    st.dictionaries(st.text(), ARRAYS, max_size=3),
    lambda inner: st.dictionaries(st.text(), ARRAYS | inner | st.lists(inner, min_size=1, max_size=2), max_size=3),
    max_leaves=5,
)


class TestRendering:
    @given(TABLES)
    def test_what_is_written_as_toml_is_read_back_the_same(self, table):
        assert tomllib.loads(toml.dumps(table)) == table

    @pytest.mark.parametrize("path", [None, FULL, EXAMPLE], ids=["defaults", "full", "csv"])
    def test_a_rendered_configuration_is_read_back_the_same(self, path, tmp_path):
        config = load(path, {})
        assert load(written(tmp_path, render(config)), {}) == config

    def test_defaults_are_shown(self):
        shown = render(load(FULL, {}))
        assert "timeout_s = 15" in shown
        assert 'international_prefix = "00"' in shown

    def test_what_the_address_of_a_webhook_asks_is_not_shown(self, tmp_path):
        output = '[[output]]\nkind = "webhook"\nsecret_env = "X"\nurl = "https://crm.example/hooks?t=TEhJU0lTTk9U"\n'
        (tmp_path / "c.toml").write_text(output)
        config = load(tmp_path / "c.toml", {})
        assert config.output[0].url.endswith("?t=TEhJU0lTTk9U")
        assert 'url = "https://crm.example/hooks?(not shown)"' in render(config)

    def test_secrets_are_not_shown(self):
        environ = {"STAYLINE_CRM_SECRET": SECRET}
        config = load(FULL, environ)
        secrets = resolve_secrets(config, environ)
        assert secrets.webhooks == {"crm": (SECRET,)}
        assert SECRET not in render(config) + repr(config) + repr(secrets)


class TestOverrides:
    @pytest.mark.parametrize("path", [FULL, EXAMPLE], ids=["full", "csv"])
    def test_every_key_can_be_set_from_the_environment(self, path):
        config = load(path, {})
        pairs = list(leaves(tomllib.loads(render(config))))
        assert len(pairs) > 30
        assert load(None, {as_variable(path): as_text(value) for path, value in pairs}) == config

    def test_the_environment_wins_over_the_file(self):
        environ = {
            "STAYLINE_DEPLOYMENT__NAME": "123",
            "STAYLINE_INPUT__KAFKA__BROKERS": "10.0.0.1:9092,10.0.0.2:9092",
            "STAYLINE_INPUT__FILE__PATHS": "a.ndjson, b.ndjson",
            "STAYLINE_INPUT__FILE__FOLLOW": "true",
            "STAYLINE_INPUT__KAFKA__PARTITIONS": "[0, 1]",
            "STAYLINE_OUTPUT__0__URL": "https://other.example/",
            "STAYLINE_OUTPUT__2": '{ kind = "file", path = "alerts.ndjson" }',
        }
        config = load(FULL, environ)
        assert config.deployment.name == "123"
        assert config.input.kafka.brokers == "10.0.0.1:9092,10.0.0.2:9092"
        assert config.input.kafka.partitions == (0, 1)
        assert config.input.file.model_dump() == {"paths": ("a.ndjson", "b.ndjson"), "follow": True}
        assert config.output[0].url == "https://other.example/"
        assert [output.name for output in config.output] == ["crm", "kafka", "file"]

    @pytest.mark.parametrize(
        ("text", "owned"),
        [("all", range(7)), ("2-4", [2, 3, 4]), ("1/3", [1, 4]), ("0/1", range(7)), ("[5, 0]", [0, 5]), ("[]", [])],
    )
    def test_partitions_are_named_in_several_ways(self, tmp_path, text, owned):
        config = load(FULL, {"STAYLINE_INPUT__KAFKA__PARTITIONS": text})
        assert [number for number in range(7) if owns(config.input.kafka.partitions, number)] == list(owned)
        assert load(written(tmp_path, render(config)), {}).input.kafka.partitions == config.input.kafka.partitions

    @pytest.mark.parametrize("text", ["3/3", "4-2", "0/0", "0-999999", "1", "-1/2", "[1, 1]", "[-1]", "some"])
    def test_partitions_that_name_none_are_refused(self, text):
        with pytest.raises(ConfigError, match='must be "all", a list of different partition numbers, a range'):
            load(FULL, {"STAYLINE_INPUT__KAFKA__PARTITIONS": text})

    def test_outputs_are_added_in_the_order_of_their_numbers(self):
        environ = {f"STAYLINE_OUTPUT__{place}__NAME": f"n{place}" for place in range(12)}
        environ |= {f"STAYLINE_OUTPUT__{place}__KIND": "file" for place in range(12)}
        environ |= {f"STAYLINE_OUTPUT__{place}__PATH": f"p{place}" for place in range(12)}
        assert [output.name for output in load(None, environ).output] == [f"n{place}" for place in range(12)]

    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("STAYLINE_STATE__DIRECTOY", "must stand for a key of the configuration, and state.directoy is none"),
            ("STAYLINE_OUTPUT__3__NAME", "must count from 0 without a gap, and there are 2 before it"),
            ("STAYLINE_OUTPUT__FIRST__NAME", "must stand for a key of the configuration"),
            ("STAYLINE_STATE_DIRECTORY", "must be written STAYLINE_STATE__DIRECTORY to stand for state.directory"),
            ("STAYLINE_INPUT_KAFKA_BROKERS", "must be written STAYLINE_INPUT__KAFKA__BROKERS"),
            ("STAYLINE_OUTPUT__0__SECRET", "a secret stands in the variable that secret_env names"),
            ("STAYLINE_STATE__", "must stand for a key of the configuration"),
        ],
    )
    def test_a_variable_that_stands_for_no_key_is_refused(self, name, problem):
        found = problems_of(FULL, {name: SECRET})
        assert len(found) == 1
        assert found[0].startswith(f"{name}: ")
        assert problem in found[0]
        assert SECRET not in found[0]

    def test_a_variable_named_as_the_place_of_a_secret_is_no_override(self):
        environ = {"STAYLINE_OUTPUT__0__SECRET_ENV": "STAYLINE_CRM__KEY", "STAYLINE_CRM__KEY": SECRET}
        config = load(FULL, environ)
        assert resolve_secrets(config, environ).webhooks == {"crm": (SECRET,)}

    def test_other_variables_are_nobody_s_business(self):
        assert load(FULL, {"PATH": "x", "STAYLINE_CRM_SECRET": "y", "STAYLINES__X": "z"}) == load(FULL, {})

    def test_a_problem_names_the_variable_it_came_from(self):
        found = problems_of(FULL, {"STAYLINE_STATE__IDLE_DAYS": "soon"})
        assert found == ['state.idle_days (STAYLINE_STATE__IDLE_DAYS): must be a whole number, was "soon"']

    @given(
        st.dictionaries(st.sampled_from(["INPUT", "OUTPUT", "STATE", "0", "", "CSV"]), st.text(max_size=8), max_size=3)
    )
    def test_no_environment_makes_it_fall_over(self, parts):
        environ = {f"STAYLINE_{first}__{second}": text for first in parts for second, text in parts.items()}
        with contextlib.suppress(ConfigError):
            load(FULL, environ)


class TestSecrets:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "is not set"),
            ("hunter2", "must begin with whsec_"),
            ("whsec_%%%", "was not base64"),
            ("whsec_" + base64.b64encode(b"k" * 23).decode(), "held 23"),
            ("whsec_" + base64.b64encode(b"k" * 65).decode(), "held 65"),
            (f"{SECRET} {SECRET} {SECRET}", "had more"),
        ],
    )
    def test_what_is_no_webhook_secret_is_refused_and_not_told(self, text, problem):
        config = load(FULL, {})
        with pytest.raises(ConfigError) as caught:
            resolve_secrets(config, {"STAYLINE_CRM_SECRET": text})
        assert [problem in one for one in caught.value.problems] == [True]
        assert not text or text not in str(caught.value)

    @pytest.mark.parametrize("size", [24, 64])
    def test_two_secrets_stand_beside_each_other_while_they_change_over(self, size):
        other = "whsec_" + base64.b64encode(b"o" * size).decode()
        environ = {"STAYLINE_CRM_SECRET": f"{other} {SECRET}\n"}
        assert resolve_secrets(load(FULL, {}), environ).webhooks == {"crm": (other, SECRET)}

    def test_a_secret_is_read_from_a_file(self, tmp_path):
        (tmp_path / "key").write_text(f"{SECRET}\n")
        text = f'[[output]]\nkind = "webhook"\nurl = "https://crm.example/"\nsecret_file = "{tmp_path / "key"}"\n'
        path = written(tmp_path, text)
        assert resolve_secrets(load(path, {}), {}).webhooks == {"webhook": (SECRET,)}
        for damage in (
            lambda key: key.write_bytes(b"\xff"),
            lambda key: key.write_text(""),
            lambda key: key.unlink(),
        ):
            damage(tmp_path / "key")
            with pytest.raises(ConfigError, match=r"output\.0\.secret_file"):
                resolve_secrets(load(path, {}), {})

    def test_a_key_for_tokens_is_asked_for_where_identities_become_tokens(self):
        config = load(FULL, {})
        assert resolve_token_key(config, {}) is None
        converting = with_format(config, "asterisk")
        with pytest.raises(ConfigError, match="STAYLINE_TOKEN_KEY is not set"):
            resolve_token_key(converting, {})
        with pytest.raises(ConfigError, match="held 15"):
            resolve_token_key(converting, {"STAYLINE_TOKEN_KEY": "k" * 15})
        key = resolve_token_key(converting, {"STAYLINE_TOKEN_KEY": "k" * 16})
        assert format_options(converting, key).tokens.identity("1") != "1"

    def test_passwords_for_brokers_are_fetched_where_there_is_a_user(self, tmp_path):
        (tmp_path / "word").write_text("of the file\n")
        environ = {
            "STAYLINE_CRM_SECRET": SECRET,
            "STAYLINE_INPUT__KAFKA__USERNAME": "reader",
            "STAYLINE_INPUT__KAFKA__SECRET_ENV": "READER",
            "STAYLINE_OUTPUT__1__USERNAME": "writer",
            "STAYLINE_OUTPUT__1__SECRET_FILE": str(tmp_path / "word"),
        }
        config = load(FULL, environ)
        secrets = resolve_secrets(config, environ | {"READER": "of the environment"})
        assert (secrets.input_password, secrets.output_passwords) == ("of the environment", {"kafka": "of the file"})
        assert not any(word in repr(secrets) + render(config) for word in ("of the environment", "of the file"))
        with pytest.raises(ConfigError, match=r"input\.kafka\.secret_env: the password for the brokers must stand"):
            resolve_secrets(config, environ)
        # An input that is not read needs no password.
        unread = load(FULL, environ | {"STAYLINE_INPUT__KIND": "http"})
        assert resolve_secrets(unread, environ).input_password is None
        assert resolve_secrets(load(FULL, {}), environ).output_passwords == {}

    def test_all_secrets_missing_are_told_at_once(self):
        with pytest.raises(ConfigError) as caught:
            resolve_secrets(with_format(load(FULL, {}), "cucm"), {})
        assert len(caught.value.problems) == 2


class TestRunnable:
    def test_nothing_to_read_and_nowhere_to_write_cannot_be_run(self):
        keys = [problem.split(":")[0] for problem in runnable(load(None, {}))]
        assert keys == ["input.file.paths", "output"]

    @pytest.mark.parametrize("kind", ["file", "http", "hep", "kafka"])
    def test_every_input_and_output_can_be_run(self, kind):
        environ = {"STAYLINE_INPUT__KIND": kind, "STAYLINE_OUTPUT__2": '{ kind = "file", path = "alerts.ndjson" }'}
        assert runnable(load(FULL, environ)) == []

    def test_a_format_that_nobody_knows_is_refused(self):
        with pytest.raises(ConfigError, match="--format"):
            with_format(Config(), "dbase")
