"""The desk's pages: what the templates are given."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import jinja2
from markupsafe import Markup, escape
from msgspec import Struct, structs

from schemas.alerts import Alert, Incident
from sinks.desk import charts, words
from sinks.desk.access import form_token
from sinks.desk.actions import Done
from sinks.desk.cards import SEVERITIES, Card, CaseFile, Counts, Filter
from sinks.desk.figures import Figures, Suspect
from sinks.desk.people import KEY_SCOPES, Key, Person, Record
from sinks.desk.words import Language

PAGE_CASES: Final = 50
"""Cases on one page of the feed: more than a representative calls in a day."""

SNOOZE_HOURS: Final = (1, 4, 24, 72)

SUSPECTS_SHOWN: Final = 5
"""Elements of each kind in the operations view."""

SUSPECT_KINDS: Final = ("access_node", "trunk", "cpe_firmware")
"""The kinds that have a list of their own; all others share one."""

_PLACES: Final = {
    "feed.html": "customers",
    "network.html": "network",
    "audit.html": "audit",
    "keys.html": "keys",
}
"""The templates that the navigation leads to, and its names for them."""

_TURNING: Final = re.compile("[\u202a-\u202e]")
"""Characters that turn the direction of text around (Unicode, UAX #9): with them one token looks like another."""


def _shown(value: Any) -> Any:
    """Make characters visible that would make text look like another; what is exact by mark-up stays as it is."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _TURNING.sub("\N{REPLACEMENT CHARACTER}", value)
    return value


_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("sinks.desk"),
    autoescape=True,
    finalize=_shown,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
# `exact`: for values that come back to us, as in forms.
_templates.filters.update(iso=words.iso, case_path=words.case_path, exact=escape)
_templates.globals.update(
    KINDS=[name.removeprefix("kind.") for name in words.catalogue("en") if name.startswith("kind.")],
    BANDS=("high", "raised", "low"),
    SEVERITIES=tuple(reversed(SEVERITIES)),
    LANGUAGES=words.LANGUAGES,
    SNOOZE_HOURS=SNOOZE_HOURS,
    KEY_SCOPES=KEY_SCOPES,
)


class Asking(Struct, frozen=True):
    """Whom a page is for.

    Attributes:
        person: None where nobody is logged in.
        is_local: whether the desk has no login.
        path: the page's own path and query, to come back to.
    """

    language: Language
    person: Person | None
    is_local: bool
    path: str

    def render(self, template: str, **values: Any) -> str:
        """Write a page."""
        language, person = self.language, self.person
        return _templates.get_template(template).render(
            t=language.t,
            has=language.has,
            word=language.word,
            number=language.number,
            decimal=language.decimal,
            percent=language.percent,
            money=language.money,
            duration=language.duration,
            utc=language.moment,
            code=language.code,
            zone=language.timezone,
            person=person,
            may=frozenset() if person is None else person.scopes,
            token="" if person is None else form_token(person),
            is_local=self.is_local,
            path=self.path,
            place=_PLACES.get(template, ""),
            **values,
        )


def feed_page(
    asking: Asking,
    *,
    cards: list[Card],
    total: int,
    counts: Counts,
    incidents: list[Incident],
    found: charts.Bars,
    wanted: Filter,
    page: int,
    seq: int,
) -> str:
    """Write the feed.

    Args:
        cards: the cases of this page; `total` of them match the filter.
        counts: the desk in numbers.
        incidents: the open ones.
        found: cases found over time.
        wanted: the filter that chose the cards.
        page: 1 and up.
        seq: the feed's sequence before anything of this was read: the live feed goes on from there.
    """
    chosen = {name: value for name, value in structs.asdict(wanted).items() if value is not None}
    if "owner" in chosen:
        chosen["mine"] = "1"
        del chosen["owner"]
    return asking.render(
        "feed.html",
        cards=cards,
        headline=headline(asking.language),
        total=total,
        counts=counts,
        incidents=incidents,
        found=found,
        found_spans=charts.spans(incidents, found.begin_ms, found.end_ms),
        wanted=wanted,
        is_filtered=bool(chosen.keys() - {"show"}),
        chosen=chosen,
        page=page,
        pages=max(1, -(-total // PAGE_CASES)),
        seq=seq,
    )


def case_page(
    asking: Asking,
    file: CaseFile,
    incident: Incident | None,
    following: Card | None,
    *,
    done: str = "",
    problem: Done | None = None,
    identity: str | None = None,
    has_resolver: bool = False,
    talks: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> str:
    """Write the card of one case.

    Args:
        asking: whom for.
        file: the case.
        incident: the shared fault it belongs to, if that is known.
        following: the case to go on with.
        done: the action recorded just now; anything that is none: nothing was.
        problem: why an action was not recorded.
        identity: who the customer is, where that was asked for; empty: the resolver does not know.
        has_resolver: whether it can be asked for.
        talks: what to say about a remedy, by language; see `sinks.desk.views.TalkTracks`.
    """
    alert, revisions = file.card.alert, file.revisions
    titles = {remedy.remedy_id: remedy.title for each in revisions for remedy in each.alert.remedies}
    effects = [abs(driver.effect) for driver in alert.churn.drivers]
    return asking.render(
        "case.html",
        card=file.card,
        alert=alert,
        headline=headline(asking.language),
        revisions=revisions,
        actions=file.actions,
        titles=titles,
        timeline=charts.timeline(charts.calls_of(alert)),
        quality=charts.quality(charts.calls_of(alert)),
        ratios=charts.trend(
            revisions, lambda one: one.alert.pattern.drop_ratio, lambda one: one.alert.pattern.baseline_ratio
        ),
        chances=charts.trend(revisions, lambda one: one.alert.churn.probability, lambda one: one.alert.churn.baseline),
        scale=charts.scale(alert.pattern.drop_ratio, alert.pattern.baseline_ratio),
        pull=lambda effect: charts.pull(effect, max(effects)),
        incident=incident,
        following=following,
        done=done if asking.language.has(f"did.{done}") else "",
        problem=problem,
        identity=identity,
        has_resolver=has_resolver,
        talks=talks,
        languages=words.LANGUAGES,
    )


def network_page(
    asking: Asking,
    figures: Figures | None,
    incidents: list[Incident],
    found: charts.Bars,
    seq: int,
) -> str:
    """Write the operations view.

    Args:
        asking: whom for.
        figures: what the deployment tells of itself, None where there is none.
        incidents: those of the time shown.
        found: cases found over that time.
        seq: as for `feed_page`.
    """
    return asking.render(
        "network.html",
        figures=figures,
        incidents=incidents,
        spans=charts.spans(incidents, found.begin_ms, found.end_ms),
        found=found,
        suspects={} if figures is None else _by_kind(figures.suspects),
        scale=charts.scale(*(one.excess for one in figures.suspects), 1.0) if figures else charts.scale(1.0),
        seq=seq,
    )


def audit_page(asking: Asking, records: list[Record], before: int | None) -> str:
    """Write the records; `before`: where older ones begin, None if there are none."""
    return asking.render("audit.html", records=records, before=before)


def keys_page(asking: Asking, keys: list[Key], made: str | None = None) -> str:
    """Write the API keys; `made`: one that was made just now."""
    return asking.render("keys.html", keys=keys, made=made)


def message_page(asking: Asking, status: int, detail: str) -> str:
    """Write a page that says why there is no other; `detail` names a text of the catalogue's errors."""
    language = asking.language
    title = language.t(f"error.{status}" if language.has(f"error.{status}") else "error.other")
    text = language.t(f"error.{detail}") if language.has(f"error.{detail}") else ""
    return asking.render("message.html", status=status, title=title, text=text)


def headline(language: Language) -> Any:
    """Return a function from an alert to its sentence.

    The alert's own sentence is English. In other languages the sentence is made of the alert's numbers, of which
    every case has the same: the catalogue says how.
    """

    def sentence(alert: Alert) -> str:
        name = f"sentence.{alert.pattern.kind}"
        if not language.has(name):
            return alert.pattern.text
        pattern = alert.pattern
        trials = round(pattern.drops / pattern.drop_ratio) if pattern.drop_ratio else pattern.answered
        where = ""
        if pattern.dimension is not None and language.has(f"dimension.{pattern.dimension.name}"):
            name_of_it, value = f"dimension.{pattern.dimension.name}", pattern.dimension.value
            where = language.t(name_of_it, value=value, zone=language.timezone)
        return language.t(
            name,
            bad=pattern.drops,
            trials=trials,
            day=language.day(alert.since_ms),
            where=f" ({where})" if where else "",
        )

    return sentence


def _by_kind(suspects: Sequence[Suspect]) -> dict[str, list[Suspect]]:
    found: dict[str, list[Suspect]] = {}
    for one in sorted(suspects, key=lambda each: -each.excess):
        kind = one.element_kind if one.element_kind in SUSPECT_KINDS else "other"
        found.setdefault(kind, []).append(one)
    return {kind: found[kind][:SUSPECTS_SHOWN] for kind in (*SUSPECT_KINDS, "other") if kind in found}
