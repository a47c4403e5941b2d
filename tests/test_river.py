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


@given(st.lists(RATINGS, min_size=1, max_size=int(customers.RATING_MEMORY)))
def test_the_mean_of_the_first_hundred_calls_is_that_of_river_s_mean(ratings):
    mean = stats.Mean()
    for rating, kept in zip(ratings, learnt(ratings), strict=True):
        mean.update(rating)
        assert kept == pytest.approx(mean.get(), abs=1e-3)


@settings(max_examples=20)
@given(st.lists(RATINGS, min_size=150, max_size=300))
def test_from_then_on_it_moves_as_river_s_exponential_mean(ratings):
    first = int(customers.RATING_MEMORY)
    means = learnt(ratings)
    faded = stats.EWMean(fading_factor=1.0 / customers.RATING_MEMORY)
    # A first value is taken whole: it begins where the plain mean ended.
    faded.update(means[first - 1])
    for rating, kept in zip(ratings[first:], means[first:], strict=True):
        faded.update(rating)
        assert kept == pytest.approx(faded.get(), abs=1e-3)
