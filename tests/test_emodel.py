import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.emodel import (
    CODECS,
    R_MIN,
    codec_index,
    codec_indices,
    delay_impairment_pure,
    delay_impairment_with_echo,
    equipment_impairment,
    mos_from_r,
    quality,
    r_factor,
    r_from_mos,
    ratings,
)
from schemas.decode import decode
from schemas.text import CodeColumn

NO_PLC, PLC, G729A, G7231, EFR = (0.0, 4.3), (0.0, 25.1), (11.0, 19.0), (15.0, 16.1), (5.0, 10.0)


def one(function, *values):
    return float(function(*(np.array([value], np.float64) for value in values))[0])


def r_of(loss_percent, codec, *, burst_ratio=1.0, delay_ms=0.0, form="default_echo"):
    values = (np.array([value]) for value in (loss_percent, burst_ratio, delay_ms, *codec))
    return float(r_factor(*values, form)[0])


def quality_of(codec="PCMU", *, form="default_echo", **measures):
    """Rate one call; what is not given is not known."""
    names = ("loss_ratio", "discard_ratio", "burst_ratio", "rtt_ms", "jitter_ms")
    columns = (np.array([measures.get(name, math.nan)], np.float32) for name in names)
    return quality(*columns, CodeColumn.of([codec]), form)


# --- Published and computed reference values ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("r", "mos"), [(50, 2.58), (60, 3.10), (70, 3.60), (80, 4.02), (90, 4.34), (93.2, 4.41), (100, 4.50)]
)
def test_mos_matches_annex_b(r, mos):
    assert one(mos_from_r, r) == pytest.approx(mos, abs=0.005)


LOSS = [0, 1, 2, 3, 5, 10]
BY_LOSS = [
    (NO_PLC, [(93.2, 4.41), (75.3, 3.83), (63.0, 3.26), (54.2, 2.79), (42.1, 2.17), (26.8, 1.48)]),
    (PLC, [(93.2, 4.41), (89.6, 4.33), (86.2, 4.23), (83.1, 4.13), (77.4, 3.92), (66.1, 3.41)]),
    (G729A, [(82.2, 4.10), (78.0, 3.95), (74.2, 3.79), (70.7, 3.63), (64.7, 3.34), (53.2, 2.75)]),
    (G7231, [(78.2, 3.95), (73.5, 3.76), (69.4, 3.57), (65.6, 3.39), (59.2, 3.06), (47.5, 2.45)]),
]


@pytest.mark.parametrize(
    ("codec", "loss_percent", "r", "mos"),
    [(codec, loss, *row) for codec, rows in BY_LOSS for loss, row in zip(LOSS, rows, strict=True)],
)
def test_r_and_mos_by_loss(codec, loss_percent, r, mos):
    assert r_of(loss_percent, codec) == pytest.approx(r, abs=0.051)
    assert one(mos_from_r, r_of(loss_percent, codec)) == pytest.approx(mos, abs=0.0051)


@pytest.mark.parametrize(
    ("codec", "loss_percents", "published", "within"),
    [
        (G729A, [0, 0.5, 1, 1.5, 2, 3, 4, 8, 16], [11, 13, 15, 17, 19, 23, 26, 36, 49], 0.6),
        (G7231, [0, 0.5, 1, 1.5, 2, 3, 4, 8, 16], [15, 17, 19, 22, 24, 27, 32, 41, 55], 1.1),
        (PLC, [1, 2, 3, 5, 7, 10, 15, 20], [5, 7, 10, 15, 20, 25, 35, 45], 3.0),
        (EFR, [0, 1, 2, 3, 5], [5, 16, 21, 26, 33], 3.0),
    ],
)
def test_equipment_impairment_fits_the_points_g113_publishes(codec, loss_percents, published, within):
    for loss_percent, impairment in zip(loss_percents, published, strict=True):
        assert one(equipment_impairment, loss_percent, 1.0, *codec) == pytest.approx(impairment, abs=within)


DELAYS_MS = [100, 150, 200, 250, 300, 400]


@pytest.mark.parametrize(("delay_ms", "pure"), list(zip(DELAYS_MS, [0, 0.16, 3.04, 8.92, 14.76, 24.07], strict=True)))
def test_pure_delay_impairment(delay_ms, pure):
    assert one(delay_impairment_pure, delay_ms) == pytest.approx(pure, abs=0.0051)


@pytest.mark.parametrize(
    ("delay_ms", "echo"), list(zip(DELAYS_MS, [2.40, 3.60, 7.30, 14.00, 20.70, 34.10], strict=True))
)
def test_delay_impairment_with_default_echo(delay_ms, echo):
    assert one(delay_impairment_with_echo, delay_ms) == pytest.approx(echo, abs=0.0051)


@pytest.mark.parametrize(("delay_ms", "r"), list(zip(DELAYS_MS[:-1], [90.66, 89.54, 85.80, 79.18, 72.67], strict=True)))
def test_the_short_form_tracks_the_full_model_with_default_echo(delay_ms, r):
    assert r_of(0.0, PLC, delay_ms=delay_ms) == pytest.approx(r, abs=0.2)


@pytest.mark.parametrize(
    ("codec", "loss_percent", "delay_ms", "form", "r", "mos"),
    [
        (G729A, 1, 150, "default_echo", 74.40, 3.80),
        (G729A, 1, 150, "pure", 77.84, 3.94),
        (PLC, 3, 250, "default_echo", 69.06, 3.55),
        (PLC, 3, 250, "pure", 74.14, 3.79),
    ],
)
def test_loss_and_delay_together(codec, loss_percent, delay_ms, form, r, mos):
    found = r_of(loss_percent, codec, delay_ms=delay_ms, form=form)
    assert found == pytest.approx(r, abs=0.0051)
    # One row is 3.7847 from the base 93.2 and 3.7850 from the unrounded one.
    assert one(mos_from_r, found) == pytest.approx(mos, abs=0.0055)


@pytest.mark.parametrize(("burst_ratio", "r"), [(0, 77.42), (1, 77.42), (2, 75.99), (4, 75.17)])
def test_bursts_hurt_and_less_than_random_is_random(burst_ratio, r):
    assert r_of(5, PLC, burst_ratio=burst_ratio) == pytest.approx(r, abs=0.0051)


# --- MOS and R ----------------------------------------------------------------------------------------------


@given(st.floats(R_MIN, 100.0))
def test_r_from_mos_inverts_mos_from_r(r):
    assert one(r_from_mos, one(mos_from_r, r)) == pytest.approx(r, abs=1e-6)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_mos_rises_with_r_and_stays_on_its_scale(a, b):
    low, high = one(mos_from_r, min(a, b)), one(mos_from_r, max(a, b))
    assert 1.0 <= low <= high <= 4.5


@given(st.floats(-10, 10), st.floats(-10, 10))
def test_r_rises_with_mos_and_stays_on_its_scale(a, b):
    low, high = one(r_from_mos, min(a, b)), one(r_from_mos, max(a, b))
    assert R_MIN <= low <= high <= 100.0


def test_mos_never_dips_below_one_where_the_cubic_does():
    assert (mos_from_r(np.linspace(-5.0, 6.5, 50)) == 1.0).all()


def test_unknown_stays_unknown_between_the_scales():
    assert math.isnan(one(mos_from_r, math.nan))
    assert math.isnan(one(r_from_mos, math.nan))


# --- From measurements --------------------------------------------------------------------------------------


def test_without_a_loss_ratio_there_is_no_r():
    found = quality_of(discard_ratio=0.1, burst_ratio=1.0, rtt_ms=50.0, jitter_ms=3.0)
    assert np.isnan(found.r).all()
    assert np.isnan(found.mos).all()


def test_what_else_is_not_known_makes_nothing_worse():
    known = quality_of(loss_ratio=0.02, discard_ratio=0.0, burst_ratio=1.0, rtt_ms=0.0, jitter_ms=0.0)
    assert quality_of(loss_ratio=0.02).r == known.r


def test_loss_and_discards_are_one_loss():
    both = quality_of(loss_ratio=0.01, discard_ratio=0.02).r
    assert both == pytest.approx(quality_of(loss_ratio=0.03).r)
    assert quality_of(loss_ratio=1.0, discard_ratio=1.0).r == quality_of(loss_ratio=1.0).r


@pytest.mark.parametrize("form", ["default_echo", "pure"])
def test_delay_is_half_the_round_trip_twice_the_jitter_and_the_codecs(form):
    found = quality_of("G729", loss_ratio=0.01, rtt_ms=210.0, jitter_ms=10.0, form=form)
    assert found.r == pytest.approx(r_of(1.0, G729A, delay_ms=150.0, form=form), abs=1e-4)
    assert found.mos == mos_from_r(found.r)


measures = st.just(math.nan) | st.floats(0, 1, width=32)
times_ms = st.just(math.nan) | st.floats(0, width=32)
names = st.none() | st.sampled_from([name for codec in CODECS for name in codec.names.split()]) | st.text()


@given(
    st.lists(st.tuples(measures, measures, times_ms, times_ms, times_ms, names), max_size=10),
    st.sampled_from(["default_echo", "pure"]),
)
def test_whatever_comes_in_r_and_mos_are_on_their_scale_or_unknown(rows, form):
    columns = [np.array([row[n] for row in rows], np.float32) for n in range(5)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = quality(*columns, CodeColumn.of([row[5] for row in rows]), form)
    assert (np.isnan(found.r) == np.isnan(columns[0])).all()
    assert (np.isnan(found.mos) == np.isnan(found.r)).all()
    known = ~np.isnan(found.r)
    assert ((found.r[known] >= 0) & (found.r[known] <= 93.2)).all()
    assert ((found.mos[known] >= 1) & (found.mos[known] <= 4.42)).all()


@given(
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.floats(1, 8),
    st.floats(0, 800),
    st.sampled_from(["loss_ratio", "discard_ratio", "burst_ratio", "rtt_ms", "jitter_ms"]),
    st.sampled_from(["PCMA", "G729", "opus", None]),
    st.sampled_from(["default_echo", "pure"]),
)
def test_worse_measurements_never_give_a_better_r(loss, discard, burst, rtt, worse, codec, form):
    measured = {"loss_ratio": loss, "discard_ratio": discard, "burst_ratio": burst, "rtt_ms": rtt, "jitter_ms": 5.0}
    degraded = {**measured, worse: measured[worse] * 1.5}
    r, r_degraded = (quality_of(codec, form=form, **row).r[0] for row in (measured, degraded))
    assert r_degraded <= r + 1e-9


# --- Codecs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "ie", "bpl"),
    [
        ("PCMU pcma G711 G.711 G711U g.711a ulaw alaw PCMU/8000 PCMA/8000/1 G.711-Ulaw", 0, 25.1),
        ("G711-NoPLC", 0, 4.3),
        ("G729 G.729 g729a G.729AB G729/8000", 11, 19),
        ("G723 G.723.1 g723/8000", 15, 16.1),
        ("GSM-EFR gsm_efr EFR AMR-12.2", 5, 10),
    ],
)
def test_codecs_with_published_values_are_grounded(names, ie, bpl):
    for name in names.split():
        codec = CODECS[codec_index(name)]
        assert (codec.ie, codec.bpl) == (ie, bpl)
        assert quality_of(name, loss_ratio=0.01).grounded.all()


@pytest.mark.parametrize(
    "name",
    [
        "opus",
        "OPUS/48000/2",
        "G722",
        "g722/8000",
        "AMR",
        "AMR-WB",
        "amr-wb/16000",
        "iLBC",
        "GSM",
        "G726-32",
        "G.728",
        "EVS",
        "speex",
        "telephone-event",
    ],
)
def test_codecs_without_published_values_are_not_grounded(name):
    assert not quality_of(name, loss_ratio=0.01).grounded.any()


@pytest.mark.parametrize("name", ["opus", "G722", "AMR-WB", "iLBC", "nothing known", None])
def test_ungrounded_codecs_are_rated_as_g711_with_concealment(name):
    delay_ms = CODECS[0 if name is None else codec_index(name)].delay_ms
    found = quality_of(name, loss_ratio=0.05)
    assert found.r == pytest.approx(r_of(5.0, PLC, delay_ms=delay_ms), abs=1e-4)


def test_a_published_ie_is_used_where_only_bpl_is_missing():
    assert quality_of("GSM", loss_ratio=0.0).r == pytest.approx(93.2 - 20.0 - 0.48)


def test_no_name_stands_for_two_codecs():
    all_names = [name for codec in CODECS for name in codec.names.split()]
    assert len(all_names) == len(set(all_names))


def test_each_row_is_rated_by_its_own_codec():
    rows = ["G729", None, "opus", "PCMU", "G729", "never heard of"]
    columns = [np.full(len(rows), value, np.float32) for value in (0.02, 0.0, 1.0, 40.0, 2.0)]
    found = quality(*columns, CodeColumn.of(rows))
    for n, name in enumerate(rows):
        alone = quality_of(name, loss_ratio=0.02, discard_ratio=0.0, burst_ratio=1.0, rtt_ms=40.0, jitter_ms=2.0)
        assert (found.r[n], found.mos[n], found.grounded[n]) == (alone.r[0], alone.mos[0], alone.grounded[0])


@given(st.lists(st.tuples(measures, measures, times_ms, times_ms, times_ms, names, measures), max_size=10))
def test_the_loop_rates_as_the_vectors_do_and_takes_the_sources_mos_where_nothing_was_measured(rows):
    columns = [np.array([row[n] for row in rows], np.float32) for n in (0, 1, 2, 3, 4, 6)]
    mos = 1.0 + 4.0 * columns.pop()
    codec = CodeColumn.of([row[5] for row in rows])
    measured = quality(*columns, codec).r
    said = np.where(np.isnan(measured), r_from_mos(mos.astype(np.float64)), measured).astype(np.float32)
    order = ("loss_ratio", "discard_ratio", "burst_ratio", "rtt_ms", "jitter_ms")
    named = dict(zip(order, columns, strict=True))
    reports = replace(decode(b"").media, position=np.arange(len(rows)), codec=codec, mos=mos, **named)
    np.testing.assert_array_equal(ratings(reports, codec_indices(reports.codec)), said)
