"""The desk's pages: what the templates are given."""

from typing import Any, Final

import jinja2
from msgspec import structs

from schemas.alerts import Incident
from sinks.desk import words
from sinks.desk.cards import Card, CaseFile, Counts, Filter
from sinks.desk.timeline import lay_out

PAGE_CASES: Final = 50
"""Cases on one page of the feed: more than a representative calls in a day."""

CONFLICT: Final = "conflict"
"""Instead of a result: a colleague recorded another one first."""

_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("sinks.desk"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters.update(
    money=words.money,
    percent=words.percent,
    duration=words.duration,
    iso=words.iso,
    utc=words.utc,
    case_path=words.case_path,
    plain=words.plain,
)
_templates.globals.update(
    KINDS=words.KINDS,
    CAUSES=words.CAUSES,
    RESULTS=words.RESULTS,
    BANDS=words.BANDS,
    SEVERITIES=words.SEVERITY_WORDS,
    ELEMENTS=words.ELEMENTS,
    TYPES=words.TYPES,
    DIMENSIONS=words.DIMENSIONS,
)


def feed_page(
    cards: list[Card], total: int, counts: Counts, incidents: list[Incident], wanted: Filter, page: int, seq: int
) -> str:
    """Write the feed.

    Args:
        cards: the cases of this page; `total` of them match the filter.
        counts: the desk in numbers.
        incidents: the open ones.
        wanted: the filter that chose the cards.
        page: 1 and up.
        seq: the feed's sequence before anything of this was read: the live feed goes on from there.
    """
    chosen = {name: value for name, value in structs.asdict(wanted).items() if value is not None}
    return _templates.get_template("feed.html").render(
        cards=cards,
        total=total,
        counts=counts,
        incidents=incidents,
        wanted=wanted,
        is_filtered=bool(chosen.keys() - {"show"}),
        chosen=chosen,
        page=page,
        pages=max(1, -(-total // PAGE_CASES)),
        seq=seq,
    )


def case_page(file: CaseFile, incident: Incident | None, token: str, recorded: str) -> str:
    """Write the card of one case.

    Args:
        file: the case.
        incident: the shared fault it belongs to, if that is known.
        token: what its forms carry against forgery.
        recorded: the result recorded just now, or `CONFLICT`, or anything else: nothing was.
    """
    alert = file.card.alert
    titles = {remedy.remedy_id: remedy.title for each in file.revisions for remedy in each.alert.remedies}
    return _templates.get_template("case.html").render(
        card=file.card,
        alert=alert,
        revisions=file.revisions,
        contacts=file.contacts,
        titles=titles,
        timeline=lay_out(alert.calls),
        scale=_scale(alert.pattern.drop_ratio, alert.pattern.baseline_ratio),
        incident=incident,
        token=token,
        recorded=recorded,
        conflict=CONFLICT,
    )


def message_page(status: int, title: str, text: str) -> str:
    """Write a page that says why there is no other."""
    return _templates.get_template("message.html").render(status=status, title=title, text=text)


def _scale(*ratios: float) -> Any:
    """Return a function from a ratio to a bar's width, such that the largest one fills the room."""
    largest = max(*ratios, 0.01)
    return lambda ratio: f"{100.0 * ratio / largest:.1f}%"
