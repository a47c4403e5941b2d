"""The catalogue of remedies: what may be offered, for which causes, at what cost. Data, read and checked once."""

import string
import tomllib
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from detectors.churn.relations import REMEDIES_KEPT
from detectors.remedies.causes import CauseKind
from detectors.remedies.credits import RULES
from schemas.errors import ConfigError
from schemas.events import Currency

PLACEHOLDERS: Final = frozenset({"bad_calls", "bad_days", "cause", "credit", "follow_up_days"})
"""What a talk track may name in braces: two counts, the cause in words (English only), the credit with its
currency, the days until somebody looks again."""

NO_CREDIT_CAUSES: Final[frozenset[CauseKind]] = frozenset({"far_end", "measurement_fault"})
"""Trouble in another network is not ours to pay for, and trouble that was not there is nobody's."""

BANDWIDTH_CAUSES: Final[frozenset[CauseKind]] = frozenset({"access_congestion", "codec_or_transcoding"})
"""The only causes that more bandwidth cures."""

RESERVED: Final = frozenset({"leave_alone", "hold_out", "statutory_compensation"})
"""What else stands where a remedy's id does."""

Text = Annotated[str, Meta(min_length=1)]
CostMinor = Annotated[int, Meta(ge=0, le=10**15)]
Amounts = dict[Currency, CostMinor]
Days = Annotated[int, Meta(ge=1, le=3_650)]
Count = Annotated[int, Meta(ge=1, le=REMEDIES_KEPT)]


class Eligibility(Struct, frozen=True, forbid_unknown_fields=True):
    """To whom and how often.

    Attributes:
        segments: the customer must be in one of these; empty: any.
        consent: the customer must have agreed to one of these channels; empty: no consent is needed.
        limit_count, limit_days: at most so many times in so many days.
    """

    segments: list[Text] = msgspec.field(default_factory=list)
    consent: list[Text] = msgspec.field(default_factory=list)
    limit_count: Count = 1
    limit_days: Days = 30


class RemedyTerms(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One remedy of the catalogue; the attributes are explained at the top of `catalogue.toml`."""

    id: Annotated[str, Meta(pattern="^[a-z][a-z0-9_]*$", max_length=64)]
    title: Text
    say: Text
    why: Text
    causes: Annotated[list[CauseKind], Meta(min_length=1)]
    uplift_prior: Annotated[float, Meta(ge=0.0, le=1.0)]
    follow_up_days: Days
    cost_minor: Amounts = msgspec.field(default_factory=dict)
    approval_limit_minor: Amounts = msgspec.field(default_factory=dict)
    say_in: dict[Annotated[str, Meta(pattern="^[a-z]{2,3}$")], Text] = msgspec.field(default_factory=dict)
    is_repair: bool = False
    is_upsell: bool = False
    adds_bandwidth: bool = False
    credit_rule: str | None = None
    eligibility: Eligibility = Eligibility()


class _Header(Struct, frozen=True):
    """The keys beside the remedies."""

    version: Annotated[int, Meta(ge=1, le=1)]
    currency: Currency
    remedy: Annotated[list[dict[str, Any]], Meta(min_length=1)]


class Catalogue(Struct, frozen=True):
    """The remedies that a deployment knows, in order of preference.

    Attributes:
        currency: the one in which remedies are ranked for customers whose own is not known.
    """

    currency: str
    remedies: tuple[RemedyTerms, ...]

    @classmethod
    def load(cls, text: str) -> "Catalogue":
        """Read a catalogue from TOML and check it.

        Raises:
            ConfigError: if it does not hold; every problem is listed with its remedy and key.
        """
        try:
            table = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigError([f"catalogue: must be TOML: {error}"]) from error
        problems = _shape_problems(table, _Header, "catalogue")
        if problems:
            raise ConfigError(problems)
        for index, remedy in enumerate(table["remedy"]):
            problems += _shape_problems(remedy, RemedyTerms, _place(index, remedy))
        if problems:
            raise ConfigError(problems)
        remedies = tuple(msgspec.convert(remedy, RemedyTerms) for remedy in table["remedy"])
        ids = Counter(terms.id for terms in remedies)
        problems += [
            f"catalogue: remedy ids must be unique, found {id_!r} twice" for id_ in sorted(ids) if ids[id_] > 1
        ]
        problems += [f"catalogue: a remedy must not be called {id_}" for id_ in sorted(RESERVED & ids.keys())]
        for index, terms in enumerate(remedies):
            place = _place(index, {"id": terms.id})
            problems += [f"{place}: {problem}" for problem in _sense_problems(terms, table["currency"])]
        if problems:
            raise ConfigError(problems)
        return cls(table["currency"], remedies)


def default_catalogue_text() -> str:
    """Return the catalogue that comes with the package."""
    return resources.files("detectors.remedies").joinpath("catalogue.toml").read_text(encoding="utf-8")


def _place(index: int, remedy: Mapping[str, Any]) -> str:
    return f"catalogue.remedy[{index}] {remedy.get('id', '(no id)')}"


def _shape_problems(table: Mapping[str, Any], kind: type[Struct], place: str) -> list[str]:
    """Hold a table against a struct key by key: msgspec alone would stop at the first problem."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    problems = [f"{place}: {key} must not be there: no such key" for key in table if key not in fields]
    for name, field in fields.items():
        if name not in table:
            if field.required:
                problems.append(f"{place}: {name} must be given")
            continue
        value = table[name]
        if field.type is Eligibility and isinstance(value, dict):
            problems += _shape_problems(value, Eligibility, f"{place}: {name}")
            continue
        try:
            msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            problems.append(f"{place}: {name}: {error}")
    return problems


def _sense_problems(terms: RemedyTerms, currency: str) -> list[str]:
    """What no type can say: the rules between keys."""
    problems = _talk_problems("say", terms.say, PLACEHOLDERS)
    if terms.is_repair and (terms.is_upsell or terms.credit_rule is not None):
        problems.append("is_repair must be false where there is a credit_rule or is_upsell is true")
    for language, say in terms.say_in.items():
        problems += _talk_problems(f"say_in.{language}", say, PLACEHOLDERS - {"cause"})
    if terms.cost_minor and currency not in terms.cost_minor:
        problems.append(f"cost_minor must name the catalogue's currency {currency}")
    if terms.cost_minor:
        unpriced = sorted(terms.approval_limit_minor.keys() - terms.cost_minor.keys())
        if unpriced:
            problems.append(f"approval_limit_minor must name currencies of cost_minor only, found {unpriced}")
        unlimited = sorted(terms.cost_minor.keys() - terms.approval_limit_minor.keys())
        if terms.approval_limit_minor and unlimited:
            problems.append(f"approval_limit_minor must name every currency of cost_minor, lacks {unlimited}")
    if terms.credit_rule is not None and terms.credit_rule not in RULES:
        problems.append(f"credit_rule must be one of {', '.join(RULES)}, was {terms.credit_rule!r}")
    unpaid = sorted(NO_CREDIT_CAUSES.intersection(terms.causes))
    if terms.credit_rule is not None and unpaid:
        problems.append(f"causes must not hold {', '.join(unpaid)} where there is a credit_rule")
    uncured = sorted(set(terms.causes) - BANDWIDTH_CAUSES)
    if terms.adds_bandwidth and uncured:
        problems.append(f"causes must not hold {', '.join(uncured)} where adds_bandwidth is true")
    return problems


def _talk_problems(key: str, say: str, allowed: frozenset[str]) -> list[str]:
    try:
        parts = list(string.Formatter().parse(say))
    except ValueError as error:
        return [f"{key} must hold whole {{placeholders}}: {error}"]
    problems = []
    for _, name, spec, conversion in parts:
        if name is not None and (name not in allowed or spec or conversion):
            written = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            problems.append(f"{key} must name only {', '.join(sorted(allowed))} in braces, found {{{written}}}")
    return problems
