"""`stayline model`: a report that is whole in itself, export and import; the catalogue that `stayline check` sees."""

import functools
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflows.checkpoints import Checkpoints
from dataflows.checkpoints.engines import keep, resume
from dataflows.commands.model import export, import_, report
from dataflows.commands.model_page import page
from dataflows.config import engine_settings, load
from dataflows.config.business import catalogue_of
from detectors.engine import RiskEngine
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.remedies.partners import Job
from detectors.remedies.uplift import Option
from detectors.settings import Settings
from schemas.errors import ConfigError, StateError

CONFIG = """
[deployment]
name = "west"
[state]
directory = "{folder}/{name}"
[churn]
serve = "logistic"
base_ratio = 0.2
margin_ratio = 0.4
[remedies]
hold_out_ratio = 0.1
budget_minor = {{ EUR = 100000 }}
[credits]
cap_percent = 30
"""


def configured(folder, name="state"):
    path = folder / f"{name}.toml"
    path.write_text(CONFIG.format(folder=folder, name=name))
    return path, load(path, {})


def engine_of(config, labels):
    return taught(RiskEngine(engine_settings(config), catalogue_of(config.remedies)), labels)


def taught(engine, labels):
    rng = np.random.default_rng(1)
    advisor = engine.memory.advisor
    for _ in range(labels):
        tenure = float(rng.exponential(500.0))
        advisor.model.learn({"tenure_days": tenure}, bool(rng.random() < 0.3 * math.exp(-tenure / 500.0)))
    advisor.chooser.bandit.learn("cpe_swap", "cpe_or_firmware", "", left=True, expected=0.2)
    advisor.chooser.partners.ordered(Job(7, "a", "cpe_swap", "north <script>", 0))
    return engine


def deployed(folder, name, labels):
    path, config = configured(folder, name)
    checkpoints = Checkpoints(config.state.directory / "engine")
    keep(engine_of(config, labels), {}, checkpoints)
    checkpoints.settle()
    return path, config


def test_the_tables_of_the_configuration_reach_the_engine(tmp_path):
    _, config = configured(tmp_path)
    business = engine_settings(config).business
    assert (business.serve, business.base_rate_prior, business.margin_ratio) == ("logistic", 0.2, 0.4)
    assert (business.hold_out_ratio, business.budget_minor, business.cap_percent) == (0.1, {"EUR": 100_000}, 30)


def test_a_catalogue_of_one_s_own_is_held_against_every_rule(tmp_path):
    path, _ = configured(tmp_path)
    catalogue = tmp_path / "remedies.toml"
    catalogue.write_text(default_catalogue_text().replace('id = "cpe_swap"', 'id = "CPE"').replace("= 0.35", "= 3.5"))
    path.write_text(path.read_text().replace("[remedies]", f'[remedies]\ncatalogue = "{catalogue}"'))
    with pytest.raises(ConfigError) as error:
        catalogue_of(load(path, {}).remedies)
    assert len(error.value.problems) == 3
    assert all(one.startswith(f"remedies.catalogue: {catalogue}: catalogue.remedy[") for one in error.value.problems)
    catalogue.unlink()
    with pytest.raises(ConfigError, match="must be a file that can be read"):
        catalogue_of(load(path, {}).remedies)


def test_the_report_is_whole_in_itself_and_shows_both_models(tmp_path):
    path, _ = deployed(tmp_path, "one", 1500)
    out = tmp_path / "report.html"
    report(path, out)
    text = out.read_text()
    assert not re.search(r"(src|href)\s*=|url\(|@import|<script", text)
    assert text.count("<svg") == 4
    for words in (
        "online-logistic@1 (serves)",
        "binned-adpredictor@1",
        "the base rate alone",
        "1,500 labels",
        "cpe_swap",
    ):
        assert words in text
    assert "north &lt;script&gt;" in text
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(svg)  # noqa: S314 - our own
    assert "nan" not in text.lower().replace("nano", "")


def test_a_report_of_one_who_learnt_nothing_says_so(tmp_path):
    _, config = configured(tmp_path)
    fresh = RiskEngine(engine_settings(config), catalogue_of(config.remedies))
    text = page("west", [fresh, fresh])
    for words in ("Nothing is known yet", "No decision is older", "No partner has reported yet", "Partition 1"):
        assert words in text


def test_what_is_exported_can_be_imported_and_scores_the_same(tmp_path):
    one, _ = deployed(tmp_path, "one", 1500)
    other, config = deployed(tmp_path, "other", 3)
    out = tmp_path / "model.json"
    export(one, out)
    assert set(orjson.loads(out.read_bytes())) == {"layout", "churn", "uplift"}
    import_(other, out)
    again = tmp_path / "again.json"
    export(other, again)
    assert again.read_bytes() == out.read_bytes()
    engine = RiskEngine(engine_settings(config), catalogue_of(config.remedies))
    checkpoints = Checkpoints(config.state.directory / "engine")
    resume(engine, checkpoints, checkpoints.newest())
    assert engine.memory.advisor.model.report().labels == 1500


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("{", ConfigError, "must be what `stayline model export` wrote"),
        ('{"layout": "stayline-model/9"}', ConfigError, "must be of layout stayline-model/1"),
        ('{"layout": "stayline-model/1", "churn": {}, "uplift": {}}', StateError, "layout of the state"),
    ],
)
def test_what_was_not_exported_is_refused_and_changes_nothing(tmp_path, text, error, words):
    path, config = deployed(tmp_path, "one", 3)
    folder = config.state.directory / "engine"
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(error, match=words):
        import_(path, tmp_path / "bad.json")
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == before


def leaves(value, path=()):
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))
    else:
        yield path


def plain(labels):
    return taught(RiskEngine(Settings("plain"), Catalogue.load(default_catalogue_text())), labels)


@functools.cache
def exported():
    advisor = plain(900).memory.advisor
    return orjson.dumps({"churn": advisor.model.snapshot(), "uplift": advisor.chooser.bandit.snapshot()})


ODD = [1e308, -1e308, 1e12, -5, 0, 0.5, 10**18, True, None, "x", [1]]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_an_export_that_was_edited_is_refused_or_works_and_no_number_of_it_turns_into_nan(data):
    state = orjson.loads(exported())
    path = data.draw(st.sampled_from(list(leaves(state))))
    inner = state
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = data.draw(st.sampled_from(ODD))
    advisor = plain(0).memory.advisor
    try:
        advisor.model.restore(state["churn"])
        advisor.chooser.bandit.restore(state["uplift"])
    except StateError:
        return
    row = {"tenure_days": 50.0, "evidence": 1.0}
    for left in (True, False):
        told = advisor.model.score(row)
        assert all(0.0 < one < 1.0 for one in (told.probability, told.baseline, *advisor.model.forecasts(row).values()))
        assert all(math.isfinite(one.effect) and "nan" not in one.text for one in told.drivers)
        advisor.model.learn(row, left)
    swap = Option("cpe_swap", 0.2, 100)
    chosen = advisor.chooser.bandit.choose([swap], "cpe_or_firmware", "", 1000.0, ["word"])
    assert sum(chosen.propensities) == pytest.approx(1.0)
    assert math.isfinite(advisor.chooser.bandit.uplift(swap, "cpe_or_firmware", ""))


@pytest.mark.parametrize(
    ("uplift", "words"),
    [
        ({"cpe_swap": [1.0, 2.0]}, "must name action"),
        ({"a|b|c|d": [1.0, 2.0]}, "must name action"),
        ({"cpe_swap|*|*": [-1.0, 2.0]}, "pairs of numbers"),
        ({"cpe_swap|*|*": [1.0]}, "pairs of numbers"),
        ({"cpe_swap|unknown|": [50.0, 1.0]}, "what its parts come to"),
        ([], "pairs of numbers"),
    ],
)
def test_a_bandit_that_was_edited_is_refused_and_goes_on(uplift, words):
    bandit = plain(0).memory.advisor.chooser.bandit
    before = bandit.snapshot()
    with pytest.raises(StateError, match=words):
        bandit.restore(uplift)
    assert bandit.snapshot() == before


def test_without_a_checkpoint_there_is_nothing_to_report(tmp_path):
    path, _ = configured(tmp_path)
    with pytest.raises(StateError, match="must hold a checkpoint"):
        report(path, tmp_path / "out.html")
