"""Shared faults: which element to blame, and the life of an incident.

Several elements turn suspicious together when one fails: the trunk, and every node whose calls take it. The blame
goes to the one whose calls explain the excess best; the others are relieved of what it caused.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from detectors.elements import E_CHANNELS, E_DROP, E_QUALITY, E_SETUP, LOG_KEPT, TOLD, Elements, element_total
from detectors.evidence import LOW_DAYS
from detectors.history import BAD, ELEMENTS
from detectors.identity import case_id
from schemas.alerts import Incident
from schemas.events import KnownIncident

CUSTOMERS_MIN = 4
"""So many customers at least must have had a bad call before an element is blamed."""

SCORE_MIN = 6.0
"""Its own rate must explain its calls e^6, some four hundred times better than its healthy one."""

SUSPICION = 3.0
"""An element looks ill from here on: what others suffered there is e^3, some twenty times likelier if it is."""

OTHERS_MIN = 2
"""So many others must have suffered there."""

RECOVERY_SHARE = 0.5
"""An incident is over against this share of the rate that it showed."""

PROBE_DROP_EXCESS = 2.0
"""A probe lies if its media readings collapse while calls drop less than this many times as often as they should."""

DAY_MS = 86_400_000

REVIEW_MS = DAY_MS
"""So often an incident is asked whether enough customers still suffer from it."""

NAMES = {
    "access_node": "access node",
    "trunk": "trunk",
    "sbc": "session border controller",
    "region": "region",
    "cpe_firmware": "firmware",
    "probe": "probe",
}


class OpenIncident(Struct):
    """An incident while it lasts.

    Attributes:
        serial: the incident's number, as customers' rows and elements carry it.
        known: told by somebody else; nothing is sent about it.
        cleared_ms: event time of its end.
        review_ms: event time of its next review.
    """

    serial: int
    incident_id: str
    element: int
    detected_ms: int
    since_ms: int
    channel: int
    baseline_ratio: float
    evidence: float
    known: bool = False
    revision: int = 1
    cleared_ms: int | None = None
    review_ms: int = 0

    def during(self, times_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell which times lie in it."""
        begun = times_ms >= self.since_ms
        return begun if self.cleared_ms is None else begun & (times_ms <= self.cleared_ms)


@dataclass(frozen=True, slots=True)
class Blame:
    """The element that explains an excess best.

    Attributes:
        log: the network's latest bad calls that it explains.
        score: log-likelihood ratio of its own rate against its healthy one.
    """

    element: int
    channel: int
    since_ms: int
    score: float
    log: npt.NDArray[np.void]


class Incidents:
    """The open incidents, by element and by serial."""

    def __init__(self, deployment: str, elements: Elements) -> None:
        self.deployment = deployment
        self.elements = elements
        self.open: dict[int, OpenIncident] = {}
        self.closed: dict[int, OpenIncident] = {}
        self._serial = 0

    def blame(self, element: int) -> Blame | None:
        """Return who is to blame for an element's excess: itself or another, or None where too few customers speak."""
        log = self.elements.recent_bad_calls()
        candidates = {element}
        own = log[np.any(log["elements"] == element, axis=1)]
        since = self._array()["since_ms"][element]
        candidates.update(int(s) for s in np.unique(own[own["end_ms"] >= since]["elements"]) if s >= 0)
        blames = [
            blame for one in sorted(candidates, key=self.elements.names.__getitem__) for blame in self._weigh(one, log)
        ]
        best = max(blames, key=lambda blame: blame.score, default=None)
        return best if best is not None and best.score >= SCORE_MIN else None

    def _array(self) -> npt.NDArray[np.void]:
        return self.elements.network.elements

    def _weigh(self, element: int, log: npt.NDArray[np.void]) -> list[Blame]:
        """Return what can be held against one element: at most one blame a channel."""
        one = self._array()[element]
        if one["incident"] > 0 or one["since_ms"] < 0 or not one["attempts"]:
            return []
        explained = log[(log["end_ms"] >= one["since_ms"]) & np.any(log["elements"] == element, axis=1)]
        blames = []
        for channel in range(E_CHANNELS):
            calls = explained[explained["signs"][:, channel] >= BAD]
            if len(np.unique(calls["key"])) < CUSTOMERS_MIN or element_total(one, channel) < LOW_DAYS:
                continue
            if ELEMENTS[one["kind"]] == "probe" and (channel != E_QUALITY or self._drops_too(element)):
                # It listens: calls that end badly where it stands are the trouble of what carries them.
                continue
            p0 = self.elements.p0(element, channel)
            # Calls inside another open incident are in the log too, but not in the counts.
            bad, size = self.elements.counts(element, channel)
            score = excess(min(_voices(calls), bad), size, p0)
            blames.append(Blame(element, channel, int(one["since_ms"]), score, calls))
        return blames

    def shared_ratio(self, elements: Iterable[int], customer: int) -> float:
        """Return the share of bad calls that others suffer on the sickest of some elements; 0.0 where none looks ill.

        Args:
            elements: serials.
            customer: whose own calls do not count.
        """
        troubled = [element for element in elements if self._array()[element]["since_ms"] >= 0]
        if not troubled:
            return 0.0
        log = self.elements.recent_bad_calls()
        log = log[log["key"] != np.uint64(customer)]
        ratios = [0.0]
        for element in troubled:
            since_ms = self._array()[element]["since_ms"]
            through = log[(log["end_ms"] >= since_ms) & np.any(log["elements"] == element, axis=1)]
            for channel in range(E_CHANNELS):
                calls = through[through["signs"][:, channel] >= BAD]
                counted, size = self.elements.counts(element, channel)
                bad = min(_voices(calls), counted)
                looks_ill = bad > 0 and excess(bad, size, self.elements.p0(element, channel)) >= SUSPICION
                if looks_ill and len(np.unique(calls["key"])) >= OTHERS_MIN:
                    ratios.append(bad / size)
        return max(ratios)

    def _drops_too(self, element: int) -> bool:
        one = self._array()[element]
        return bool(one["drops"] > PROBE_DROP_EXCESS * self.elements.p0(element, E_DROP) * one["answered"] + 2.0)

    def start(self, blame: Blame, detected_ms: int) -> OpenIncident:
        """Open an incident on the blamed element and relieve the others that its bad calls ran through."""
        one = self._array()[blame.element]
        kind, name = self.elements.names[blame.element]
        p0 = self.elements.p0(blame.element, blame.channel)
        bad, size = self.elements.counts(blame.element, blame.channel)
        identity = case_id("in", self.deployment, kind, name, blame.since_ms)
        incident = self._enter(identity, blame.element, detected_ms, blame.since_ms, blame.channel, p0)
        incident.evidence = float(np.log10(max(element_total(one, blame.channel), 1.0)))
        one["recovery_p"] = min(max(RECOVERY_SHARE * bad / max(size, 1), 2.5 * p0), 0.95)
        one["recovery_p0"] = p0
        for other in np.unique(blame.log["elements"]):
            # What an element counts in an incident of its own is that incident's.
            if other == blame.element or (other >= 0 and not self._array()[other]["incident"]):
                self._relieve(int(other), counters=other != blame.element)
        return incident

    def _enter(
        self, identity: str, element: int, detected_ms: int, since_ms: int, channel: int, p0: float
    ) -> OpenIncident:
        self._serial += 1
        incident = OpenIncident(self._serial, identity, element, detected_ms, since_ms, channel, p0, 0.0)
        incident.review_ms = detected_ms + REVIEW_MS
        self.open[incident.serial] = incident
        one = self._array()[element]
        one["incident"], one["recovery"], one["channel"], one["customers"] = incident.serial, 0.0, channel, 0
        return incident

    def _relieve(self, element: int, *, counters: bool) -> None:
        one = self._array()[element]
        one["evidence"][:] = 0.0
        if counters:
            one["since_ms"] = -1
            for name in ("attempts", "answered", "drops", "failures", "poor", "rated"):
                one[name] = 0

    def told(self, event: KnownIncident) -> OpenIncident | None:
        """Take over an alarm that somebody else raised or cleared; return an incident that is new by it."""
        if event.element_kind not in ELEMENTS:
            return None
        element = self.elements.serial(event.element_kind, event.element_id)
        if element < 0:
            return None
        serial = int(self._array()[element]["incident"])
        if event.status == "cleared":
            if serial in self.open and self.open[serial].known:
                self.stop(self.open[serial], event.at_ms)
            return None
        if serial != 0 or self._is_over(event):
            return None
        # What a probe is said to have is a fault of measurement: its calls were fine.
        channel = E_QUALITY if event.element_kind == "probe" else E_DROP
        incident = self._enter(event.incident_id, element, event.at_ms, event.at_ms, channel, 0.0)
        incident.known = True
        self._array()[element]["recovery_p"] = TOLD
        return incident

    def _is_over(self, event: KnownIncident) -> bool:
        """Tell whether an alarm is one that has been closed already, told again."""
        ended = [one for one in self.closed.values() if one.incident_id == event.incident_id]
        return any(one.since_ms == event.at_ms for one in ended)

    def customers_inside(self, incident: OpenIncident) -> npt.NDArray[np.uint64]:
        """Return the keys of customers whose bad calls, lately and since an incident began, ran through its element."""
        log = self.elements.recent_bad_calls()
        through = np.any(log["elements"] == incident.element, axis=1)
        return np.unique(log["key"][through & (log["end_ms"] >= incident.since_ms)])

    def stop(self, incident: OpenIncident, now_ms: int) -> None:
        """Close an incident; its element begins anew."""
        incident.cleared_ms = now_ms
        del self.open[incident.serial]
        self.closed[incident.serial] = incident
        one = self._array()[incident.element]
        one["incident"] = 0
        self._relieve(incident.element, counters=True)

    def next_due_ms(self, never: int) -> int:
        """Return the event time of the next review."""
        return min((one.review_ms for one in self.open.values() if not one.known), default=never)

    def faded(self, now_ms: int) -> list[OpenIncident]:
        """Review the incidents that are due for it; return those that go on for a few customers only.

        To blame an element takes several customers, and so does to go on blaming it. One or two lines that are bad by
        themselves could else keep an incident open for weeks, and nobody on that element would be watched.
        """
        due = [one for one in self.open.values() if not one.known and one.review_ms <= now_ms]
        for one in due:
            one.review_ms = now_ms + REVIEW_MS
        log = self.elements.recent_bad_calls() if due else self.elements.network.log[:0]
        # Of a large network the log may hold less than a day; then nothing is known of who suffers.
        whole = len(log) < LOG_KEPT or log["end_ms"][0] <= now_ms - REVIEW_MS
        log = log[log["end_ms"] > now_ms - REVIEW_MS]
        return [one for one in due if whole and self._voices_of(one, log) < CUSTOMERS_MIN]

    def _voices_of(self, incident: OpenIncident, log: npt.NDArray[np.void]) -> int:
        """Count the customers of a log of bad calls who suffered what an incident is about."""
        kind, _ = self.elements.names[incident.element]
        if kind == "probe" and incident.channel == E_QUALITY:
            # What it reports is not believed, so no call is bad by it: recovery alone says when it is over.
            return CUSTOMERS_MIN
        its = np.any(log["elements"] == incident.element, axis=1) & (log["signs"][:, incident.channel] >= BAD)
        return len(np.unique(log["key"][its]))

    def recent(self) -> list[OpenIncident]:
        """Return those that are open, and those closed that a pending case can still belong to."""
        return [*self.open.values(), *self.closed.values()]

    def forget_closed(self, before_ms: int) -> None:
        """Drop closed incidents that no pending case can still belong to."""
        self.closed = {serial: one for serial, one in self.closed.items() if one.detected_ms >= before_ms}

    def report(self, incident: OpenIncident, cleared_ms: int | None) -> Incident:
        """Return an incident as it is sent; call before `stop`."""
        one = self._array()[incident.element]
        kind, name = self.elements.names[incident.element]
        bad, size = self.elements.counts(incident.element, incident.channel)
        baseline = incident.baseline_ratio
        if incident.channel == E_SETUP and one["attempts"]:
            # Told of all attempts, not of those alone that nobody answered.
            baseline, size = baseline * size / int(one["attempts"]), int(one["attempts"])
        ratio = bad / size if size else 0.0
        return Incident(
            incident_id=incident.incident_id,
            revision=incident.revision,
            element_kind=kind,
            element_id=name,
            detected_ms=incident.detected_ms,
            since_ms=incident.since_ms,
            cleared_ms=cleared_ms,
            customers_affected=int(one["customers"]),
            drops=bad,
            attempts=size,
            drop_ratio=round(ratio, 4),
            baseline_ratio=round(baseline, 4),
            evidence=round(incident.evidence, 2),
            text=_sentence(kind, name, bad, size, incident, over=cleared_ms is not None),
        )

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain values: a copy."""
        return {
            "serial": self._serial,
            "open": [_plain(one) for one in self.open.values()],
            "closed": [_plain(one) for one in self.closed.values()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a snapshot."""
        self._serial = state["serial"]
        self.open = {one["serial"]: OpenIncident(**one) for one in state["open"]}
        self.closed = {one["serial"]: OpenIncident(**one) for one in state["closed"]}


def _voices(calls: npt.NDArray[np.void]) -> int:
    """Count bad calls, each customer once a day: it is many who make an outage, not one line with many calls."""
    return len(set(zip(calls["key"].tolist(), (calls["end_ms"] // DAY_MS).tolist(), strict=True)))


def _plain(incident: OpenIncident) -> dict[str, Any]:
    return {name: getattr(incident, name) for name in incident.__struct_fields__}


def excess(bad: int, size: int, p0: float) -> float:
    """Return the log-likelihood ratio of the observed rate against p0; 0 where there is no excess."""
    rate = min(bad / size, 1.0 - 1e-9) if size else 0.0
    if rate <= p0:
        return 0.0
    return float(bad * np.log(rate / p0) + (size - bad) * np.log((1.0 - rate) / (1.0 - p0)))


def _sentence(kind: str, name: str, bad: int, size: int, incident: OpenIncident, *, over: bool) -> str:
    """Say what is shared, in one sentence whose numbers are the incident's fields."""
    place = f"{NAMES[kind]} {name}"
    if kind == "probe" and incident.channel == E_QUALITY:
        was = "reported" if over else "reports"
        return f"Probe {name} {was} poor media on {bad} of {size} calls that were fine: a measurement fault."
    calls, what = {
        E_DROP: ("answered calls", "were cut off"),
        E_QUALITY: ("answered calls", "had poor sound"),
        E_SETUP: ("call attempts", "were not set up"),
    }[incident.channel]
    tail = "; it is over." if over else "."
    return f"{bad} of {size} {calls} through {place} {what}{tail}"
