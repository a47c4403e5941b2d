"""What went astray on either side, as an operator sees it: records that could not be read, deliveries given up.

A record's id is `dl_` and a digest of what it is and where it stood; a delivery's is `OUTPUT/NOTIFICATION`. All of it
works beside a running deployment as well: the files are locked for the moment of a change, and what is replayed is
taken by the run within a second or two, or by the next one when it starts.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from dataflows.commands.again import Found, Report, judged
from dataflows.deadletters import DeadLetterFile, record_of
from dataflows.inputs.resubmitted import SOURCE as RESUBMITTED
from dataflows.inputs.resubmitted import Resubmitted
from schemas.alerts import rfc3339
from schemas.deadletters import DeadLetter, DeadReason
from schemas.errors import StateError
from sinks.layout import held_alone
from sinks.outbox import Outbox
from sinks.outputs import Clock, Undeliverable, answer_of
from sinks.undelivered import DeadDelivery

REASONS = frozenset({*DeadReason, *Undeliverable})
"""Why anything is here: a closed set."""

DELIVERIES_MAX = 2**31
"""More than an outbox holds."""

_CUT_SHORT = {DeadReason.TOO_LARGE, DeadReason.TRUNCATED}
_STANDING = {"file", "kafka"}
"""Inputs whose records stand where they stood, to be read again."""


ReadAgain = Callable[[Collection[str], Report], Mapping[str, Found]]
"""Reads the records at some places again; is told where to report how far it has come."""


class Letter(Struct, frozen=True):
    """One dead letter, without its contents: nothing here names a customer.

    Attributes:
        kind: `record` or `delivery`.
        source: the input's kind, or the output's name.
        at: where the record stood; when the delivery was given up.
        detail: what must hold and what was found; how often it was tried and what was answered.
    """

    id: str
    kind: str
    source: str
    reason: str
    at: str
    detail: str


class Wanted(Struct, frozen=True):
    """Which letters: what is not given does not narrow.

    Attributes:
        ids: these alone; empty: any.
    """

    ids: frozenset[str] = frozenset()
    kind: str | None = None
    source: str | None = None
    reason: str | None = None

    def takes(self, letter: Letter) -> bool:
        """Whether a letter is among those wanted."""
        return (
            (not self.ids or letter.id in self.ids)
            and self.kind in {None, letter.kind}
            and self.source in {None, letter.source}
            and self.reason in {None, letter.reason}
        )


class Replayed(Struct, frozen=True):
    """What came of a replay.

    Attributes:
        records, deliveries: given to the input again; queued again.
        refused: id and reason of each record that cannot be read still; it stays where it is.
    """

    records: int
    deliveries: int
    refused: list[tuple[str, str]]


class Letterbox:
    """The dead letters of one deployment.

    Args:
        folder: its state directory.
        read_again: reads vendors' records again where they stood; None: the input takes contract events.
        clock: Unix milliseconds.
        write_back: writes records to the places of the input that they came from: where each partition has a state,
            none but that partition knows what to do with them. None: the run reads them beside its input.

    Raises:
        StateError: there is no state, or it is damaged.
    """

    def __init__(
        self,
        folder: Path,
        read_again: ReadAgain | None,
        clock: Clock,
        write_back: Callable[[Sequence[DeadLetter]], None] | None = None,
    ) -> None:
        if not folder.is_dir():
            raise StateError(f"{folder}: must be the state of a deployment, and there is none")
        self._folder = folder
        self._write_back = write_back
        self._records = DeadLetterFile(folder / "dead-letters.ndjson")
        self._read_again = read_again
        self._clock = clock
        path = folder / "outbox.sqlite3"
        self._outbox = Outbox.open(path, {}, clock) if path.exists() else None

    def close(self) -> None:
        """Close the files."""
        if self._outbox is not None:
            self._outbox.close()

    def letters(self, wanted: Wanted) -> Iterator[Letter]:
        """Give the letters wanted, records first, each sort oldest first."""
        if wanted.kind != "delivery":
            yield from filter(wanted.takes, (_of_record(name, letter) for name, letter in self._records.read()))
        if wanted.kind != "record" and self._outbox is not None:
            dead = self._outbox.undelivered.list(limit=DELIVERIES_MAX)
            yield from filter(wanted.takes, map(_of_delivery, dead))

    def sources(self) -> set[str]:
        """Return what letters may come from: every sort of input, and the outputs that have letters here."""
        return {letter.source for letter in self.letters(Wanted())} | {"file", "http", "kafka", "hep", RESUBMITTED}

    def contents(self, name: str) -> tuple[Letter, str, bytes] | None:
        """Return one letter, the last answer of its receiver if it is a delivery, and the record or body itself."""
        output, slash, identity = name.rpartition("/")
        if slash:
            found = None if self._outbox is None else self._outbox.undelivered.show(output, identity)
            return None if found is None else (_of_delivery(found[0]), found[0].reply, found[1])
        for each, letter in self._records.read():
            if each == name:
                return _of_record(each, letter), "", record_of(letter)
        return None

    def replay(self, wanted: Wanted, report: Report = lambda _: None) -> Replayed:
        """Give records to the input again and queue deliveries again, with the ids that they have.

        A record that would be a dead letter again stays where it is. Killed in between, records may come twice: equal
        call ids count once.

        Raises:
            StateError: the state cannot be written, or somebody else is replaying.
            DeliveryError: the input's brokers do not take the records.
        """
        with self._alone():
            events: list[bytes] = []
            taken: dict[str, DeadLetter] = {}
            refused: list[tuple[str, str]] = []
            chosen = dict(self._chosen_records(wanted))
            for name, found in self._given_now(chosen, report):
                if found.problem:
                    refused.append((name, found.problem))
                else:
                    events += found.events
                    taken[name] = chosen[name]
            if events and self._write_back is not None:
                self._write_back(list(taken.values()))
            elif events:
                Resubmitted(self._folder / "resubmitted").publish(events)
            if events:
                self._records.remove(lambda name, _: name in taken)
            return Replayed(len(taken), self._each_output(wanted, self._requeue), refused)

    def discard(self, wanted: Wanted) -> int:
        """Drop letters for good, the records from the disk too; return how many there were.

        Raises:
            StateError: the state cannot be written, or somebody else is replaying.
        """
        with self._alone():
            gone = 0
            if wanted.kind != "delivery":
                gone = self._records.remove(lambda name, letter: wanted.takes(_of_record(name, letter)))
            return gone + self._each_output(wanted, self._drop)

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        return held_alone(self._folder / "dead-letters-operator")

    def _chosen_records(self, wanted: Wanted) -> Iterator[tuple[str, DeadLetter]]:
        if wanted.kind != "delivery":
            for name, letter in self._records.read():
                if wanted.takes(_of_record(name, letter)):
                    yield name, letter

    def _each_output(self, wanted: Wanted, act: Callable[[Outbox, str, Sequence[str]], int]) -> int:
        if wanted.kind == "record" or self._outbox is None:
            return 0
        chosen: dict[str, list[str]] = defaultdict(list)
        for dead in self._outbox.undelivered.list(limit=DELIVERIES_MAX):
            if wanted.takes(_of_delivery(dead)):
                chosen[dead.output].append(dead.id)
        return sum(act(self._outbox, output, names) for output, names in chosen.items())

    def _requeue(self, outbox: Outbox, output: str, names: Sequence[str]) -> int:
        return outbox.undelivered.replay(output, names, self._clock())

    @staticmethod
    def _drop(outbox: Outbox, output: str, names: Sequence[str]) -> int:
        return outbox.undelivered.discard(output, names)

    def _given_now(self, letters: dict[str, DeadLetter], report: Report) -> Iterator[tuple[str, Found]]:
        """Give for each letter the events that its record gives now, or why there are none."""
        masked = {
            name: letter
            for name, letter in letters.items()
            if self._read_again is not None and letter.source in _STANDING
        }
        again: Mapping[str, Found] = {}
        if masked and self._read_again is not None:
            again = self._read_again({letter.at for letter in masked.values()}, report)
        for name, letter in letters.items():
            yield name, again[letter.at] if name in masked else self._kept(letter)

    def _kept(self, letter: DeadLetter) -> Found:
        """Return the event that a dead letter keeps, or why it is none."""
        if letter.reason in _CUT_SHORT:
            return Found([], f"{letter.reason}: only a part of the record is there")
        found = judged([record_of(letter)])
        if found.problem and self._read_again is not None and letter.source != RESUBMITTED:
            return Found([], "must be sent again by its sender, mended: of a vendor's record its outline alone is kept")
        return found


def _of_record(name: str, letter: DeadLetter) -> Letter:
    return Letter(name, "record", letter.source, letter.reason, letter.at, letter.detail)


def _of_delivery(dead: DeadDelivery) -> Letter:
    # What a receiver answered may repeat what it was sent: of an answer the status alone is shown in a list.
    found = answer_of(dead.reply)
    answer = f"answered {found}" if found.isdigit() else found
    tries = f"{dead.attempts} attempt{'s' if dead.attempts != 1 else ''}"
    detail = f"{tries}, {answer}" if answer else tries
    return Letter(f"{dead.output}/{dead.id}", "delivery", dead.output, dead.reason, rfc3339(dead.ended_ms), detail)
