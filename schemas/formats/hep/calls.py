"""One call as its messages tell it.

A call is everything under one Call-ID from the first INVITE on: the challenge and the second INVITE (401, 407), forks,
re-INVITEs, the same message at every hop and from every probe. What happens to it:

    INVITE ──► TRYING ──2xx──► UP ──BYE──► ENDING ──final answer to BYE──► OVER
                 │              └─ silence, or 408/481 inside the dialog ────► OVER
                 ├─ 401, 407, 3xx and others that are tried again ──► RETRIED ──INVITE──► TRYING
                 └─ final failure on the caller's own hop, of the last branch ──────────► OVER

- *Who released it*: the side whose tag is in the BYE's From (RFC 3261, section 12.2.1.1). The network, where BYEs went
  both ways (a proxy that ends a call does that), or where a BYE began at an element that had relayed the INVITE.
- *A BYE that never came* is no drop by itself: a capture loses packets. A dialog that showed no life for `OPEN_MS` has
  ended with its last sign of life, nobody knows how. Only where a session timer ran out, with no refresh from either
  side (RFC 4028, section 10), is it known to be dead: status 408, released by the network.
- *Copies* (retransmissions, other hops, a second probe) change nothing: the first one counts.
"""

from collections.abc import Callable

from msgspec import Struct, field

from schemas.formats.hep.media import Ear
from schemas.formats.hep.packets import Packet
from schemas.formats.hep.sip import Message, address_of, endpoint_of, read_audio, session_ms
from schemas.formats.names import reason_of

LINGER_MS = 32_000
"""64 T1, RFC 3261 section 17.1 (timers B, F and H): no copy of a message is sent later than that."""

SETUP_MS = 300_000
"""Without a word for so long an attempt is given up: more than timer C (above 180 s, RFC 3261, section 16.6), and what
Kamailio allows an early dialog."""

OPEN_MS = 43_200_000
"""Without a sign of life for so long, and without a session timer, a call is over: Kamailio's dialog timeout, 12 h."""

SESSION_MS_MIN = 90_000
"""RFC 4028, section 5: no session timer may be shorter."""

LISTED_MAX, LISTED_BYTES_MAX = 16, 256
"""Tags, branches and addresses kept of one call, and how long one may be: more forks than anybody has telephones."""

TRIED_AGAIN = frozenset({*range(300, 400), 401, 407, 413, 415, 416, 420, 421, 422, 428, 488, 491, 494, 606})
"""After these the caller may send the INVITE again, changed or elsewhere (RFC 3261, section 8.1.3; RFC 4028)."""

REACHED = frozenset({480, 486, 600, 603})
"""These say that the callee's end was found."""

DIALOG_LOST = frozenset({408, 481})
"""Inside a dialog these say that the other end knows nothing of it any more (RFC 5057, section 5.1)."""

REQUEST_TIMEOUT = 408

Identity = Callable[[str], str]
"""Turns an address into a token."""


TRYING, RETRIED, UP, ENDING, OVER = range(5)
"""Where a call stands. Plain numbers: each packet asks, and an enum's member is slow to look up."""


class Side(Struct, gc=False):
    """One of the two parties.

    Attributes:
        token: who it is; None: not known, or withheld.
        asserted: the network vouched for that (RFC 3325): better than what the party says of itself.
        tags: what its end of the dialog is called; of the callee those that answered.
        places: where it wants RTP.
        model, firmware: of its equipment.
        ear: what it reported of the sound.
    """

    token: str | None = None
    asserted: bool = False
    tags: list[bytes] = field(default_factory=list)
    places: list[bytes] = field(default_factory=list)
    model: str | None = None
    firmware: str | None = None
    ear: Ear = field(default_factory=Ear)


class Call(Struct, gc=False):
    """One call, open or just over.

    Attributes:
        name: token of the attempt: the same for every probe.
        agent: the probe that first told of it; its clock is the one that counts.
        start_ms, answer_ms, end_ms: `end_ms` is 0 until something has ended it.
        seen_ms: last sign of life.
        cseq: of the newest INVITE that began it.
        hops: fewest hops at which that INVITE was seen: the one nearest the caller.
        branches, refused: transactions of that INVITE on that hop, and those of them that were refused.
        status, reason: what decided it, and why.
        refreshed_ms, session_ms: when the session timer began anew, and how long it is; None: there is none.
        rang, reached: a provisional answer came; the callee's end was found.
        senders, receivers: addresses that sent the INVITE, and those that got it.
        bye_from, bye_hops: sender of the BYE nearest its origin.
        byes: dialogs, by the callee's tags, that were ended.
    """

    name: str
    agent: str
    start_ms: int
    seen_ms: int
    cseq: int
    hops: int
    phase: int = TRYING
    answer_ms: int | None = None
    end_ms: int = 0
    status: int | None = None
    reason: str = ""
    refreshed_ms: int = 0
    session_ms: int | None = None
    rang: bool = False
    reached: bool = False
    canceled: bool = False
    released_by_caller: bool = False
    released_by_callee: bool = False
    released_by_network: bool = False
    codec: str = ""
    clock_hz: int = 8_000
    caller: Side = field(default_factory=Side)
    callee: Side = field(default_factory=Side)
    branches: list[bytes] = field(default_factory=list)
    refused: list[bytes] = field(default_factory=list)
    senders: list[bytes] = field(default_factory=list)
    receivers: list[bytes] = field(default_factory=list)
    bye_from: bytes = b""
    bye_hops: int = 0
    bye_receivers: list[bytes] = field(default_factory=list)
    byes: list[bytes] = field(default_factory=list)

    def renewed_by(self, message: Message) -> bool:
        """Tell whether an INVITE is a new attempt under the Call-ID of this one, which is over."""
        if message.from_tag not in self.caller.tags or message.cseq > self.cseq:
            return True
        # The next target of a proxy whose caller's side is not seen: same INVITE, new branch.
        same_hop = message.cseq == self.cseq and message.hops() == self.hops
        return self.answer_ms is None and same_hop and message.branch() not in self.branches

    def follow(self, packet: Packet, message: Message) -> bool:
        """Take notice of a message; return whether the call is over with it."""
        self.seen_ms = max(self.seen_ms, packet.at_ms)
        method = message.method
        if method == b"INVITE":
            return self._invite_answered(packet, message) if message.status else self._invite(packet, message)
        if method == b"BYE":
            return self._bye(packet, message)
        if method == b"CANCEL":
            self._cancel(message)
        elif method == b"ACK":
            self._learn_codec(self.caller, message)
        elif message.status:
            self._answered_inside(message, packet.at_ms)
        return False

    def meet(self, message: Message, identity: Identity) -> None:
        """Take from an INVITE who calls whom, and with what."""
        headers, caller, callee = message.headers, self.caller, self.callee
        asserted = headers.get(b"p-asserted-identity")
        if asserted and not caller.asserted:
            caller.asserted, caller.token = True, _token(asserted, identity)
        elif caller.token is None and not caller.asserted:
            caller.token = _token(headers[b"from"], identity)
        if callee.token is None:
            callee.token = _token(headers[b"to"], identity)
        if caller.model is None and message.hops() <= self.hops:
            agent = endpoint_of(headers.get(b"user-agent", b""), message)
            caller.model, caller.firmware = agent.model, agent.firmware

    def _invite(self, packet: Packet, message: Message) -> bool:
        if message.to_tag or self.phase > RETRIED or message.cseq < self.cseq:
            return False
        hops = message.hops()
        if message.cseq > self.cseq:
            # The answer to a challenge, a redirection or a refusal: the same call goes on.
            self.cseq, self.hops, self.phase, self.status, self.reason = message.cseq, hops, TRYING, None, ""
            self.branches, self.refused, self.canceled = [], [], False
        if hops < self.hops:
            self.branches, self.refused, self.hops = [], [], hops
        if hops == self.hops:
            _list(self.branches, message.branch())
        _list(self.caller.tags, message.from_tag)
        _list(self.senders, packet.source)
        _list(self.receivers, packet.target)
        audio = read_audio(message.body) if message.body else None
        if audio is not None:
            _list(self.caller.places, audio.place)
        return False

    def _invite_answered(self, packet: Packet, message: Message) -> bool:
        status = message.status
        if message.cseq != self.cseq or message.from_tag not in self.caller.tags:
            self._answered_inside(message, packet.at_ms)
        elif status == 100 or self.phase > UP:
            return False
        elif status < 200:
            self.rang = self.reached = True
            if self.phase == TRYING:
                self._learn_codec(self.callee, message)
        elif status < 300:
            self._up(packet, message)
        elif self.phase == TRYING and message.hops() <= self.hops:
            # What comes from further on is of one branch: the element that forked decides what becomes of the call.
            return self._refused(packet, message)
        return False

    def _up(self, packet: Packet, message: Message) -> None:
        if self.phase != UP:
            self.phase, self.answer_ms, self.status, self.reason = UP, packet.at_ms, message.status, ""
            self.reached = True
        _list(self.callee.tags, message.to_tag)
        if self.callee.model is None:
            said = message.headers.get(b"user-agent", b"") or message.headers.get(b"server", b"")
            agent = endpoint_of(said, message)
            self.callee.model, self.callee.firmware = agent.model, agent.firmware
        self._learn_codec(self.callee, message)
        self._refresh(message, packet.at_ms)

    def _refused(self, packet: Packet, message: Message) -> bool:
        """Take a final refusal on the caller's own hop; return whether no branch is left."""
        _list(self.refused, message.branch())
        self.status, self.end_ms = message.status, packet.at_ms
        self.reached = self.reached or message.status in REACHED
        self._learn_reason(message)
        if message.status in TRIED_AGAIN:
            self.phase = RETRIED
            return False
        return all(branch in self.refused for branch in self.branches)

    def _cancel(self, message: Message) -> None:
        # CANCEL goes from hop to hop: the one on the caller's own hop is the caller's (RFC 3261, section 9.1).
        if not message.status and self.phase == TRYING and message.branch() in self.branches:
            self.canceled = True
            self._learn_reason(message)

    def _bye(self, packet: Packet, message: Message) -> bool:
        """Take a BYE, or the answer to one that was not seen itself; return whether the call is over."""
        if self.phase == RETRIED or message.status in {401, 407} or 0 < message.status < 200:
            return False
        by_caller = message.from_tag in self.caller.tags
        dialog = message.to_tag if by_caller else message.from_tag
        _list(self.byes, dialog)
        if dialog in self.callee.tags and any(tag not in self.byes for tag in self.callee.tags):
            return False  # of two forks that answered, the caller gives up one
        if self.phase != ENDING:
            self.phase, self.end_ms = ENDING, packet.at_ms
        self.released_by_caller |= by_caller
        self.released_by_callee |= not by_caller
        if message.status:
            return True
        self._learn_reason(message)
        hops = message.hops()
        if not self.bye_from or hops < self.bye_hops:
            self.bye_from, self.bye_hops = packet.source, hops
        _list(self.bye_receivers, packet.target)
        return False

    def _answered_inside(self, message: Message, at_ms: int) -> None:
        """Take the answer to a request inside the dialog."""
        if self.phase != UP or not message.to_tag:
            return
        if message.method in {b"INVITE", b"UPDATE"} and 200 <= message.status < 300:
            side = self.callee if message.from_tag in self.caller.tags else self.caller
            self._learn_codec(side, message)
            self._refresh(message, at_ms)
        elif message.status in DIALOG_LOST:
            self.phase, self.end_ms = ENDING, at_ms
            self.status, self.released_by_network = message.status, True
            self._learn_reason(message)

    def overdue(self, now_ms: int) -> bool:
        """Tell whether silence has lasted so long that it says something."""
        if self.phase == UP:
            if self.session_ms is None:
                return now_ms - self.seen_ms >= OPEN_MS
            run_out = now_ms - self.refreshed_ms >= self.session_ms + LINGER_MS
            # Reports still come: a refresh was missed, not the call.
            return run_out and now_ms - self.seen_ms >= LINGER_MS
        if self.phase in (RETRIED, ENDING):
            return now_ms - self.end_ms >= LINGER_MS
        return now_ms - self.seen_ms >= (SETUP_MS if self.phase == TRYING else LINGER_MS)

    def is_decided(self) -> bool:
        """Tell whether its outcome is known, if perhaps not yet all of it."""
        return self.phase in (RETRIED, ENDING) or (self.phase == TRYING and self.status is not None)

    def conclude(self) -> None:
        """Draw the conclusion from silence."""
        if self.phase == TRYING:
            self.end_ms = self.seen_ms
            if self.status is None and not self.rang and not self.canceled:
                # Nobody answered at all: RFC 3261, section 8.1.3.1, has that taken for a 408.
                self.status = REQUEST_TIMEOUT
        elif self.phase == UP:
            self.end_ms = self.seen_ms
            if self.session_ms is not None:
                self.status, self.released_by_network = REQUEST_TIMEOUT, True

    def by_network(self) -> bool:
        """Tell whether an element in between ended the call."""
        both = self.released_by_caller and self.released_by_callee
        relay = self.bye_from in self.senders and self.bye_from in self.receivers
        return self.released_by_network or both or (relay and self.bye_from not in self.bye_receivers)

    def _learn_codec(self, side: Side, message: Message) -> None:
        """Take codec and place from the session description of an answer (RFC 3264)."""
        audio = read_audio(message.body) if message.body else None
        if audio is not None:
            _list(side.places, audio.place)
            if audio.clock_hz:
                self.codec, self.clock_hz = audio.codec, audio.clock_hz

    def _learn_reason(self, message: Message) -> None:
        value = message.headers.get(b"reason")
        if value and not self.reason:
            self.reason = reason_of(value.decode("utf-8", "replace")) or ""

    def _refresh(self, message: Message, at_ms: int) -> None:
        asked_ms = session_ms(message)
        self.session_ms = None if asked_ms is None else max(asked_ms, SESSION_MS_MIN)
        self.refreshed_ms = at_ms


def _token(header: bytes, identity: Identity) -> str | None:
    address = address_of(header)
    return None if address is None else identity(address)


def _list(kept: list[bytes], item: bytes) -> None:
    """Add what is new, inside the bounds."""
    if item and item not in kept and len(kept) < LISTED_MAX and len(item) <= LISTED_BYTES_MAX:
        kept.append(item)


def opened(packet: Packet, message: Message, name: str, agent: str) -> Call:
    """Begin a call with the INVITE that was seen."""
    return Call(name, agent, packet.at_ms, packet.at_ms, message.cseq, message.hops())
