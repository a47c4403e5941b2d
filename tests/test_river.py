"""What the loop keeps of a customer's R-factor beside river's statistics on the same calls."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import stats

from detectors.roster import ROW
from detectors.watch import customers
from schemas.kernels import kernel

RATINGS = st.floats(20.0, 93.0, width=32)


@kernel
def learn(rows, rating):
    customers._learn_rating(rows[0], rating)


def learnt(ratings):
    """The mean after each of the calls."""
    rows = np.zeros(1, ROW)
    means = []
    for rating in ratings:
        learn(rows, rating)
        means.append(float(rows[0]["rating"]))
    return means


def taught(ratings, mean, spread, known=0):
    """The mean after each of the calls, by river's statistics of what the calls are clipped to.

    Args:
        mean, spread: river's statistics of R, and of how far it lies from its mean.
        known: calls that they have seen.
    """
    for number, rating in enumerate(ratings, known + 1):
        count = min(number, int(customers.RATING_MEMORY))
        away = 0.0
        if number > 1:
            usual = (mean.get() * count + 80.0 * 2.0) / (count + 2.0)
            step = max((spread.get() * count + 5.0 * 5.0) / (count + 5.0), 3.0)
            rating = max(rating, usual - 2.0 * step)  # noqa: PLW2901  from here on it is the clipped one
            away = abs(rating - mean.get())
        mean.update(rating)
        spread.update(away)
        yield mean.get()


@given(st.lists(RATINGS, min_size=1, max_size=int(customers.RATING_MEMORY)))
def test_the_mean_of_the_first_hundred_calls_is_river_s_mean_of_them_clipped(ratings):
    assert learnt(ratings) == pytest.approx(list(taught(ratings, stats.Mean(), stats.Mean())), abs=1e-3)


@given(st.lists(st.floats(87.0, 93.0, width=32), min_size=1, max_size=int(customers.RATING_MEMORY)))
def test_of_calls_that_differ_little_it_is_river_s_mean_of_the_calls_themselves(ratings):
    mean = stats.Mean()
    for rating, kept in zip(ratings, learnt(ratings), strict=True):
        mean.update(rating)
        assert kept == pytest.approx(mean.get(), abs=1e-3)


@settings(max_examples=20)
@given(st.lists(RATINGS, min_size=150, max_size=300))
def test_from_then_on_it_moves_as_river_s_exponential_mean_of_them_clipped(ratings):
    first = int(customers.RATING_MEMORY)
    mean, spread = stats.Mean(), stats.Mean()
    list(taught(ratings[:first], mean, spread))
    fading = 1.0 / customers.RATING_MEMORY
    faded, faded_spread = stats.EWMean(fading_factor=fading), stats.EWMean(fading_factor=fading)
    # A first value is taken whole: they begin where the plain means ended.
    faded.update(mean.get())
    faded_spread.update(spread.get())
    wanted = list(taught(ratings[first:], faded, faded_spread, known=first))
    assert learnt(ratings)[first:] == pytest.approx(wanted, abs=1e-3)
