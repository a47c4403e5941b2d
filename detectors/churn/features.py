"""The features of the churn model: their names, what they mean, and the words a driver is told in.

A feature that is not known is absent from the mapping: never zero, never NaN. A name that is not listed here is
refused, so that a misspelt one cannot learn quietly beside the right one.
"""

import math
import struct
from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import Final

from msgspec import Struct

FEATURE_MAX: Final = 1e15
"""The largest magnitude of a feature: far above any real one, far below what could overflow."""


class FeatureWords(Struct, frozen=True):
    """How a feature is called in a sentence.

    Attributes:
        name: what is measured, as the start of a sentence.
        unit: written after the number; empty for plain counts and ratios.
    """

    name: str
    unit: str = ""


FEATURES: Final[Mapping[str, FeatureWords]] = {
    "tenure_days": FeatureWords("time as a customer", "days"),
    "contract_days_left": FeatureWords("time left in the contract", "days"),
    "monthly_fee": FeatureWords("the monthly fee"),
    "plan_down_mbps": FeatureWords("the plan's download speed", "Mbit/s"),
    "contacts_quality_30d": FeatureWords("contacts about quality in 30 days"),
    "contacts_billing_30d": FeatureWords("contacts about billing in 30 days"),
    "contacts_cancel_90d": FeatureWords("contacts about cancelling in 90 days"),
    "minutes_per_day": FeatureWords("talking time a day", "minutes"),
    "usage_change_ratio": FeatureWords("usage against the period before"),
    "bill_ratio": FeatureWords("the last bill against the monthly fee"),
    "days_since_contact": FeatureWords("time since the last contact", "days"),
    "offers_accepted_180d": FeatureWords("offers accepted in 180 days"),
    "offers_declined_180d": FeatureWords("offers declined in 180 days"),
    "drops_7d": FeatureWords("bad calls of those remembered, in 7 days"),
    "drop_ratio": FeatureWords("the share of dropped calls lately"),
    "bad_quality_ratio": FeatureWords("the share of calls with bad sound lately"),
    "days_since_call": FeatureWords("time since the last call", "days"),
    "cases_open": FeatureWords("open cases"),
    "cases_30d": FeatureWords("cases in 30 days"),
    "days_since_case": FeatureWords("time since the last case", "days"),
    "evidence": FeatureWords("the weight of evidence for a fault (log10)"),
    "cases_solved_30d": FeatureWords("cases solved in 30 days"),
}
"""Every feature, in the order in which sums over features are taken."""


EXPERIENCE: Final = ("evidence", "drop_ratio", "bad_quality_ratio", "days_since_call", "drops_7d", "cases_open")
"""Those that the customer's calls give, in the order in which they are handed on."""


def row_of(features: Mapping[str, float]) -> list[float]:
    """Return features as a row: one for each of `FEATURES`, in their order, NaN where it is not known.

    Raises:
        ValueError: if a name is not in `FEATURES`.
    """
    if not features.keys() <= FEATURES.keys():
        unknown = next(iter(features.keys() - FEATURES.keys()))
        raise ValueError(f"a feature must be one of {', '.join(FEATURES)}, was {unknown!r}")
    return list(map(features.get, FEATURES, repeat(math.nan)))


def known_in(row: Iterable[float]) -> dict[str, float]:
    """Return the features of a row that are known."""
    return {name: value for name, value in zip(FEATURES, row, strict=True) if not math.isnan(value)}


packed = struct.Struct(f"={len(FEATURES)}d")
"""Makes a row bytes, an eighth of the mapping, so that hundreds of thousands can wait for their labels."""


def checked(features: Mapping[str, float], known: Mapping[str, FeatureWords]) -> dict[str, float]:
    """Return `features` as floats in the order of `known`, whatever order they came in.

    One order for all makes sums of floats, and so scores, independent of how the caller built the mapping.

    Raises:
        ValueError: if a name is not in `known`, or a value is not finite or beyond `FEATURE_MAX`.
    """
    for name, value in features.items():
        if name not in known:
            raise ValueError(f"a feature must be one of {', '.join(known)}, was {name!r}")
        # Written so that NaN fails too: every comparison with it is false.
        if not abs(value) <= FEATURE_MAX:
            raise ValueError(f"feature {name} must be finite and within {FEATURE_MAX:g}, was {value}")
    return {name: float(features[name]) for name in known if name in features}


def driver_text(words: FeatureWords, value: float, typical: float, effect: float) -> str:
    """Say what was learnt: how the customer differs, and what went with that among those seen so far.

    An association, in words that claim no more.

    Args:
        words: how the feature is called.
        value: the customer's.
        typical: the mean of the feature over the customers learnt, as the model sees it.
        effect: the contribution in log-odds; its sign is told.
    """
    side = "above" if value > typical else "below"
    often = "more" if effect > 0 else "less"
    unit = f" {words.unit}" if words.unit else ""
    name = words.name[0].upper() + words.name[1:]
    return (
        f"{name}: {_figure(value)}{unit}, {side} the typical {_figure(typical)}; "
        f"customers seen so far with this left {often} often, other things being equal."
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
