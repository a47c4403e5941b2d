"""How much of the risk a remedy takes away, learnt from who left after it: a bandit with logged propensities.

For each remedy, and for each (cause, segment, remedy), the ratio

    r = leavers that were / leavers that the model had expected

has a Gamma distribution (leavers are Poisson around r times the expected ones). A cell starts from what its remedy
showed elsewhere, a remedy from the catalogue's estimate. The same is learnt of customers left alone, above all of the
hold-out, so uplift = 1 - r(remedy) / r(alone) does not depend on the model's calibration; it is negative where contact
does harm.

The choice is Thompson's (1933): each action is taken with the probability that it is the best one. These
probabilities are computed from many draws and logged, then one action is drawn from them: what was logged is exact.
All chance is a digest of the case's id: a replay takes the same actions.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, cast

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct, ValidationError, convert
from river import bandit, proba
from river.bandit.base import ArmID
from scipy.special import ndtri

from detectors.snapshots import NUMBER_MAX
from schemas.errors import StateError

Floats = npt.NDArray[np.float64]

ALONE: Final = "leave_alone"
"""The action of doing nothing."""

REMEDY_STRENGTH: Final = 10.0
"""How many expected leavers the catalogue's estimate weighs."""

CELL_STRENGTH: Final = 10.0
"""How many expected leavers the remedy's own record weighs in a cell of its."""

ALONE_STRENGTH: Final = 40.0
"""How many expected leavers the model's calibration weighs: those left alone leave as it says until they show other."""

DRAWS: Final = 128
"""So many draws decide how probable it is that an action is the best: to some 4%."""


CELLS_MAX: Final = 20_000
"""Pairs of cause and segment that are learnt apart, times remedies; beyond, only what a remedy does everywhere."""


Weight = Annotated[float, Meta(ge=0.0, le=NUMBER_MAX)]
Cells = dict[str, tuple[Weight, Weight]]
"""A snapshot: by action|cause|segment, leavers that were and that were expected."""


class Ratio(proba.base.ContinuousDistribution):
    """What is known of one ratio: a river distribution that is told of each customer what happened and was expected."""

    def __init__(self, left: float = 0.0, expected: float = 0.0) -> None:
        super().__init__(seed=None)
        self.left = left
        self.expected = expected

    def update(self, left: bool, expected: float) -> None:  # type: ignore[override]  # noqa: FBT001  of two numbers
        """Learn one customer."""
        self.left += left
        self.expected += expected

    def revert(self, left: bool, expected: float) -> None:  # type: ignore[override]  # noqa: FBT001  of two numbers
        """Take one customer back."""
        self.left -= left
        self.expected -= expected

    @property
    def n_samples(self) -> float:
        """Leavers expected of those learnt."""
        return self.expected

    @property
    def mode(self) -> float:
        """The ratio as counted; 1 before there is any."""
        return self.left / self.expected if self.expected > 0.0 else 1.0

    def posterior(self, mean: float, strength: float) -> tuple[float, float]:
        """Return shape and rate of the Gamma distribution, from a prior of this mean and weight."""
        return strength * mean + self.left, strength + self.expected

    def __call__(self, x: float) -> float:
        """Return the density at `x` under a flat prior of weight one."""
        shape, rate = self.posterior(1.0, 1.0)
        return math.exp(shape * math.log(rate) - math.lgamma(shape) + (shape - 1) * math.log(x) - rate * x)

    def cdf(self, x: float) -> float:
        """Return the chance of at most `x`, by the normal approximation of its cube root."""
        shape, rate = self.posterior(1.0, 1.0)
        z = ((x * rate / shape) ** (1 / 3) - 1 + 1 / (9 * shape)) * 3 * math.sqrt(shape)
        return 0.5 * math.erfc(-z / math.sqrt(2))

    def sample(self) -> float:
        """Return the mode: chance comes from outside."""
        return self.mode


_UNTRIED: Final = Ratio()
"""What is known of an action never taken. To make one takes longer than to weigh it: river seeds a generator."""


class Option(Struct, frozen=True):
    """An action that may be taken.

    Attributes:
        action: a remedy's id.
        uplift_prior: the catalogue's estimate.
        cost_minor: what it costs.
    """

    action: str
    uplift_prior: float
    cost_minor: int


class Choice(Struct, frozen=True):
    """What was chosen, from what, how probably.

    Attributes:
        action: an option's, or `ALONE`.
        propensity: with what probability it was chosen.
        actions, propensities, ratios: everything that could have been, `ALONE` first; ratios of leavers to those
            expected, at their means.
    """

    action: str
    propensity: float
    actions: list[str]
    propensities: list[float]
    ratios: list[float]


class UpliftBandit(bandit.base.ContextualPolicy):
    """River's contextual policy whose arms are remedies, and whose context is (cause, segment).

    Args:
        explore_ratio: share of choices spread evenly over all actions, so that none is ever impossible.
    """

    def __init__(self, explore_ratio: float = 0.02) -> None:
        super().__init__(reward_obj=Ratio())
        self.explore_ratio = explore_ratio

    def learn(self, action: str, cause: str, segment: str, *, left: bool, expected: float) -> None:
        """Learn what became of one customer.

        Args:
            action: what was done.
            cause, segment: the context; an unknown segment is "".
            left: whether they left within the horizon.
            expected: how probable the model had said that was.
        """
        everywhere, here = _keys(action, cause, segment)
        self.update(everywhere, None, left, expected)  # type: ignore[no-untyped-call]
        if here in self._rewards or len(self._rewards) < CELLS_MAX:
            self.update(here, None, left, expected)  # type: ignore[no-untyped-call]

    def gamma(self, option: Option | None, cause: str, segment: str) -> tuple[float, float]:
        """Return shape and rate of an action's ratio in a context; None is leaving alone."""
        action = ALONE if option is None else option.action
        prior = 1.0 if option is None else 1.0 - option.uplift_prior
        strength = ALONE_STRENGTH if option is None else REMEDY_STRENGTH
        everywhere, here = (self._ratio(key) for key in _keys(action, cause, segment))
        shape, rate = everywhere.posterior(max(prior, 0.05), strength)
        # What the cell itself showed must not count twice: it is taken out of its own prior.
        shape, rate = shape - here.left, rate - here.expected
        return here.posterior(shape / rate, min(rate, CELL_STRENGTH if option is not None else ALONE_STRENGTH))

    def uplift(self, option: Option, cause: str, segment: str) -> float:
        """Return the mean share of the risk that a remedy takes away; negative where it adds to it."""
        return self.uplifts(cause, segment)(option)

    def uplifts(self, cause: str, segment: str) -> Callable[[Option], float]:
        """Return a function that gives `uplift` in this context."""
        alone_shape, alone_rate = self.gamma(None, cause, segment)

        def uplift(option: Option) -> float:
            shape, rate = self.gamma(option, cause, segment)
            return 1.0 - (shape / rate) / (alone_shape / alone_rate)

        return uplift

    def choose(
        self, options: Sequence[Option], cause: str, segment: str, at_risk_minor: float, words: Sequence[str]
    ) -> Choice:
        """Choose among the options and leaving alone.

        Args:
            options: what may be done.
            cause, segment: the context.
            at_risk_minor: P(leaves) x remaining value.
            words: what the chance is a digest of.
        """
        gammas = [self.gamma(None, cause, segment), *(self.gamma(option, cause, segment) for option in options)]
        costs = np.array([0.0, *(float(option.cost_minor) for option in options)])
        count = len(gammas)
        chance = uniforms(1 + DRAWS * count, words)
        shape, rate = np.array(gammas).T
        ratios = gamma_quantiles(chance[1:].reshape(DRAWS, count), shape, rate)
        gains = at_risk_minor * (1.0 - ratios / ratios[:, :1]) - costs
        best = np.bincount(gains.argmax(axis=1), minlength=count) / DRAWS
        propensities = (1.0 - self.explore_ratio) * best + self.explore_ratio / count
        chosen = min(int(np.searchsorted(np.cumsum(propensities), chance[0], side="right")), count - 1)
        actions = [ALONE, *(option.action for option in options)]
        return Choice(
            actions[chosen], float(propensities[chosen]), actions, propensities.tolist(), (shape / rate).tolist()
        )

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return {key: [ratio.left, ratio.expected] for key, ratio in self._known()}

    def restore(self, state: Any) -> None:
        """Take over a snapshot.

        Raises:
            StateError: if it is damaged; what is known is then as before.
        """
        try:
            read = convert(state, Cells)
        except ValidationError as error:
            raise StateError(f"the state of the bandit must hold pairs of numbers: {error}") from None
        _check(read)
        self._rewards.clear()
        self._rewards.update({key: Ratio(left, expected) for key, (left, expected) in read.items()})

    def table(self) -> list[tuple[str, str, str, float, float]]:
        """Return (action, cause, segment, left, expected) of all cells; cause "*" is all of them."""
        cells = []
        for key, ratio in self._known():
            action, cause, segment = key.split("|")
            cells.append((action, cause, segment, ratio.left, ratio.expected))
        return cells

    def _known(self) -> list[tuple[str, Ratio]]:
        return sorted((str(key), cast("Ratio", ratio)) for key, ratio in self._rewards.items())

    def _ratio(self, key: str) -> Ratio:
        return cast("Ratio", self._rewards.get(key, _UNTRIED))

    def _pull(self, arm_ids: list[ArmID], context: dict[str, str]) -> ArmID:  # type: ignore[override]  # as river's own
        """Return the arm with the lowest ratio: river's interface, without chance."""
        return min(arm_ids, key=lambda arm: self._ratio(_keys(str(arm), context["cause"], context["segment"])[1]).mode)


def _keys(action: str, cause: str, segment: str) -> tuple[str, str]:
    return f"{action}|*|*", f"{action}|{cause}|{segment.replace('|', '/')}"


def _check(cells: Mapping[str, tuple[float, float]]) -> None:
    """Hold a snapshot against itself."""
    sums: dict[str, list[float]] = {}
    for key, (left, expected) in cells.items():
        if key.count("|") != 2:
            raise StateError(f"the state of the bandit must name action|cause|segment, found {key!r}")
        if not key.endswith("|*|*"):
            both = sums.setdefault(f"{key.partition('|')[0]}|*|*", [0.0, 0.0])
            both[0] += left
            both[1] += expected
    for key, parts in sums.items():
        # Sums of the same numbers in another order may differ in their last digits.
        if not all(
            part <= 1e-6 + (1 + 1e-6) * whole for part, whole in zip(parts, cells.get(key, (0, 0)), strict=True)
        ):
            raise StateError(f"the state of the bandit must hold in {key} what its parts come to, found less")


def uniforms(count: int, words: Sequence[str]) -> Floats:
    """Return `count` numbers in (0, 1) that look drawn and are a digest of `words` (SHAKE-128)."""
    digest = hashlib.shake_128("\0".join(words).encode()).digest(8 * count)
    whole = np.frombuffer(digest, "<u8") >> np.uint64(11)
    return (whole.astype(np.float64) + 0.5) / 2.0**53


def gamma_quantiles(chance: Floats, shape: Floats, rate: Floats) -> Floats:
    """Return quantiles of Gamma distributions: the cube root is nearly normal (Wilson and Hilferty, 1931)."""
    part = 1.0 / (9.0 * shape)
    root = 1.0 - part + ndtri(chance) * np.sqrt(part)
    return np.asarray(np.maximum(shape / rate * root**3, 1e-9))
