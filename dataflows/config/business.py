"""`[churn]`, `[remedies]`, `[credits]`: who may leave, what helps, what is fair."""

from typing import Annotated

from pydantic import AfterValidator, Field

from dataflows.config.kinds import File, Section
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.remedies.statutory import scheme_names
from detectors.settings import Business, Serve
from schemas.errors import ConfigError


def _scheme(name: str | None) -> str | None:
    if name is not None and name not in scheme_names():
        raise ValueError(f"must be one of {', '.join(scheme_names())}")
    return name


class Churn(Section):
    """`[churn]`: which model serves, what a score is about, and what a kept customer is assumed to be worth.

    `base_ratio` is the share of customers that leave within `horizon_days`, as far as known before anything is learnt.
    """

    serve: Serve = "best"
    horizon_days: Annotated[int, Field(ge=1, le=365)] = 30
    base_ratio: Annotated[float, Field(ge=1e-6, le=0.999999)] = 0.015
    margin_ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    remaining_months: Annotated[int, Field(ge=0, le=1_200)] = 24


class Remedies(Section):
    """`[remedies]`: the catalogue, and the limits on what is offered. Repairs are never withheld by any of them.

    `hold_out_ratio` of customers are offered repairs alone, so that the effect of all else can be measured.
    `budget_minor` is what offers may cost in a calendar month (UTC), by currency.
    """

    catalogue: File | None = None
    hold_out_ratio: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    explore_ratio: Annotated[float, Field(ge=0, le=1)] = 0.02
    contacts_max: Annotated[int, Field(ge=0, le=64)] = 3
    contact_days: Annotated[int, Field(ge=1, le=365)] = 30
    budget_minor: dict[Annotated[str, Field(pattern="^[A-Z]{3}$")], Annotated[int, Field(ge=0, le=10**15)]] = Field(
        default_factory=dict
    )


class Credits(Section):
    """`[credits]`: most that one bill may credit, in percent of the monthly fee, statutory pay included.

    `statutory` names the scheme that this deployment is under (`detectors/remedies/statutory.toml`); it is due whatever
    the cap says.
    """

    cap_percent: Annotated[int, Field(ge=0, le=100)] = 50
    statutory: Annotated[str | None, AfterValidator(_scheme)] = None


def business_of(churn: Churn, remedies: Remedies, credit: Credits) -> Business:
    """Return what the tables fix for the engine."""
    return Business(
        serve=churn.serve,
        base_rate_prior=churn.base_ratio,
        horizon_days=churn.horizon_days,
        margin_ratio=churn.margin_ratio,
        remaining_months=churn.remaining_months,
        hold_out_ratio=remedies.hold_out_ratio,
        explore_ratio=remedies.explore_ratio,
        contacts_max=remedies.contacts_max,
        contact_days=remedies.contact_days,
        budget_minor=dict(remedies.budget_minor),
        cap_percent=credit.cap_percent,
        statutory=credit.statutory,
    )


def catalogue_of(remedies: Remedies) -> Catalogue:
    """Return the deployment's catalogue, or the one that comes with the package.

    Raises:
        ConfigError: the file cannot be read, or does not hold; every problem is listed.
    """
    if remedies.catalogue is None:
        return Catalogue.load(default_catalogue_text())
    try:
        text = remedies.catalogue.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            [f"remedies.catalogue: {remedies.catalogue} must be a file that can be read, was not: {error.strerror}"]
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            [f"remedies.catalogue: {remedies.catalogue} must be UTF-8, was not at byte {error.start}"]
        ) from None
    try:
        return Catalogue.load(text)
    except ConfigError as error:
        raise ConfigError([f"remedies.catalogue: {remedies.catalogue}: {one}" for one in error.problems]) from None
