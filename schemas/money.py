"""Money as integers in minor units: one rounding rule, and how an amount is written.

Every amount that is rounded here is at least zero and rounds half up to the minor unit; costs are subtracted
after rounding, as integers.
"""

import math
from collections.abc import Mapping
from typing import Final

_EXPONENTS: Final[Mapping[str, int]] = {
    **dict.fromkeys(
        (
            *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG"),
            *("RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"),
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}
# ISO 4217, table A.1: the currencies whose minor unit is not a hundredth.


def share(amount_minor: int, numerator: int, denominator: int) -> int:
    """Return amount x numerator / denominator, exactly, rounded half up. All at least 0, `denominator` above."""
    return (2 * amount_minor * numerator + denominator) // (2 * denominator)


def rounded(amount: float) -> int:
    """Round an estimate of at least 0 half up to whole minor units."""
    return math.floor(amount + 0.5)


def decimals(currency: str) -> int:
    """Return how many digits of an amount stand behind the point."""
    return _EXPONENTS.get(currency, 2)


def money_text(amount_minor: int, currency: str) -> str:
    """Write an amount with its currency: `29.99 EUR`, `300 JPY`."""
    exponent = decimals(currency)
    if exponent == 0:
        return f"{amount_minor} {currency}"
    sign = "-" if amount_minor < 0 else ""
    whole, part = divmod(abs(amount_minor), 10**exponent)
    return f"{sign}{whole}.{part:0{exponent}d} {currency}"
