"""The table of open calls, and the events that come out of it.

Time is each probe's own, as its packets have it: a wrong clock of one probe ends no call of another one. A time is
believed when it lies within an hour of the packet before, so that one corrupted packet moves no clock.
"""

import msgspec
from msgspec import Struct, field

from schemas.deadletters import DeadReason
from schemas.formats.hep.calls import ENDING, OVER, RETRIED, TRYING, UP, Call, opened
from schemas.formats.hep.events import Customers, call_event, draft_of, media_event, reporter
from schemas.formats.hep.media import Report, read_report
from schemas.formats.hep.packets import RTCP_JSON, SIP, Packet
from schemas.formats.hep.sip import Message, read_message
from schemas.formats.records import written

CALLS_MAX = 250_000
"""Calls in the table: ten million customers in their busy hour (133 attempts a second and million, three minutes each).
Some half a gigabyte."""

EVICTED_PART = 16
"""A full table gives up this part of its calls at once: looking for the right ones costs a pass over all."""

AGENTS_MAX = 4_096
"""Agents that have a clock of their own."""

SWEEP_MS = 30_000
"""How often a probe's clock asks which of its calls are overdue."""

SWEEP_PART = 8
"""Between two passes over the table lie this part of as many packets, so that a pass costs each packet little."""

STEP_MS_MAX = 3_600_000
"""Two packets of one probe that are further apart do not vouch for each other's time."""

INTERVAL_MS_MAX = 60_000
"""Reports come every few seconds; a longer gap says nothing of the time in between."""

_NOT_A_CALL = (b"REGISTER ", b"SUBSCRIBE ", b"PUBLISH ")


class Counts(Struct):
    """What became of packets.

    Attributes:
        packets: read whole.
        other: of a protocol that is not read.
        strays: SIP of a call, or a report, whose beginning was not seen.
        calls: calls begun.
        foreign: calls of which neither party is a customer with a name.
        expired: calls that ended without a word.
        evicted: calls given up for want of room.
    """

    packets: int = 0
    other: int = 0
    strays: int = 0
    calls: int = 0
    foreign: int = 0
    expired: int = 0
    evicted: int = 0


class _Clock(Struct, gc=False):
    """A probe's clock: its newest packet, the newest time that was believed, and the time of the last pass."""

    newest_ms: int
    now_ms: int
    swept_ms: int


class _State(Struct):
    """What survives a restart."""

    calls: dict[bytes, Call]
    clocks: dict[str, _Clock]
    counts: Counts
    since_sweep: int = field(default=0)


class GivenUp(Struct, frozen=True):
    """A call that becomes no event.

    Attributes:
        reason, detail: why.
        draft: what was known of it, as JSON.
    """

    reason: DeadReason
    detail: str
    draft: bytes


class CallTable:
    """Takes packets, gives events.

    Args:
        customers: who of the two parties is one, and under which name.
        calls_max: so many calls are kept at most, those just over included.

    Attributes:
        counts: what became of packets.
    """

    def __init__(self, customers: Customers, calls_max: int = CALLS_MAX) -> None:
        self._customers = customers
        self._tokens = customers.tokens
        self._calls_max = calls_max
        self._state = _State({}, {}, Counts())

    @property
    def counts(self) -> Counts:
        """What became of packets."""
        return self._state.counts

    @property
    def open_calls(self) -> int:
        """How many calls are in the table, those just over included."""
        return len(self._state.calls)

    def take(self, packet: Packet) -> list[bytes | GivenUp]:
        """Take one packet; return the events that it completes, each as a line of JSON.

        Raises:
            BadPacketError: its payload is not what its protocol type says. The table is as it was.
        """
        state = self._state
        state.counts.packets += 1
        made: list[bytes | GivenUp] = []
        if packet.protocol == SIP:
            # Keep-alives are line ends alone (RFC 5626); registrations are half of all packets and no part of a call.
            payload = packet.payload.lstrip(b"\r\n\0")
            if payload and not payload.startswith(_NOT_A_CALL):
                self._message(packet, read_message(payload), made)
        elif packet.protocol == RTCP_JSON:
            self._report(packet, read_report(packet.payload), made)
        else:
            state.counts.other += 1
        self._tick(packet, made)
        return made

    def finish(self) -> list[bytes | GivenUp]:
        """Return what can be said of the calls that are open at the end of the input."""
        made: list[bytes | GivenUp] = []
        for call in self._state.calls.values():
            overdue = call.overdue(self._state.clocks[call.agent].now_ms)
            if call.phase == OVER:
                continue
            if overdue or call.is_decided():
                self._over(call, made, silently=overdue)
            else:
                rule = "a call must have ended when the input ends"
                made.append(GivenUp(DeadReason.TRUNCATED, f"{rule}, had not", draft_of(call)))
        self._state.calls.clear()
        return made

    def snapshot(self) -> bytes:
        """Return everything that is known, as MessagePack."""
        return msgspec.msgpack.encode(self._state)

    def restore(self, data: bytes) -> None:
        """Take over what `snapshot` returned.

        Raises:
            ValueError: the data are something else.
        """
        self._state = msgspec.msgpack.decode(data, type=_State)

    def _message(self, packet: Packet, message: Message, made: list[bytes | GivenUp]) -> None:
        calls = self._state.calls
        call = calls.get(message.call_id)
        begins = message.method == b"INVITE" and not message.status and not message.to_tag
        if call is None or (begins and call.phase == OVER and call.renewed_by(message)):
            if not begins:
                # Requests outside any dialog (OPTIONS, MESSAGE...) have no call either.
                self._state.counts.strays += bool(message.to_tag)
                return
            call = self._opened(packet, message, call, made)
        if call.phase == OVER:
            return
        if begins:
            call.meet(message, self._tokens.identity)
        if call.follow(packet, message):
            self._over(call, made)

    def _opened(self, packet: Packet, message: Message, before: Call | None, made: list[bytes | GivenUp]) -> Call:
        calls = self._state.calls
        if len(calls) >= self._calls_max:
            self._evict(made)
        parts = [message.call_id, message.from_tag, b"%d" % message.cseq]
        if before is not None and before.cseq == message.cseq:
            parts.append(message.branch())
        name = self._tokens.opaque(b"\0".join(parts).decode("utf-8", "backslashreplace"))
        call = calls[message.call_id] = opened(packet, message, name, self._agent(packet))
        self._state.counts.calls += 1
        return call

    def _report(self, packet: Packet, report: Report, made: list[bytes | GivenUp]) -> None:
        call = self._state.calls.get(packet.correlation)
        if call is None:
            self._state.counts.strays += 1
            return
        call.seen_ms = max(call.seen_ms, packet.at_ms)
        side = reporter(call, packet)
        if side is None:
            self._state.counts.strays += 1
            return
        other = call.callee if side is call.caller else call.caller
        if side.ear.known(report):
            return
        since_ms = side.ear.last_ms or call.answer_ms or call.start_ms
        interval_ms = min(max(packet.at_ms - since_ms, 0), INTERVAL_MS_MAX)
        said = side.ear.take(report, other.ear, packet.at_ms, interval_ms, call.clock_hz)
        if said and any(side is one for one in self._customers.of(call)):
            made.append(written(media_event(call, side, packet.at_ms, interval_ms, packet.agent, said)))

    def _over(self, call: Call, made: list[bytes | GivenUp], *, silently: bool = False) -> None:
        if silently:
            self._state.counts.expired += call.phase in (TRYING, UP)
            call.conclude()
        call.phase = OVER
        sides = self._customers.of(call)
        made += [written(call_event(call, side)) for side in sides]
        self._state.counts.foreign += not sides

    def _tick(self, packet: Packet, made: list[bytes | GivenUp]) -> None:
        """Move the clock of the packet's probe, and look for calls that are overdue when it is time."""
        state = self._state
        state.since_sweep += 1
        at_ms = packet.at_ms
        clock = state.clocks.get(packet.agent)
        if clock is None:
            clock = state.clocks.setdefault(self._agent(packet), _Clock(at_ms, at_ms, at_ms))
        if -STEP_MS_MAX <= at_ms - clock.newest_ms <= STEP_MS_MAX:
            clock.now_ms = at_ms
        clock.newest_ms = at_ms
        # Forward or back: a clock that was set begins anew.
        if abs(clock.now_ms - clock.swept_ms) >= SWEEP_MS and state.since_sweep * SWEEP_PART >= len(state.calls):
            self._sweep(made)

    def _agent(self, packet: Packet) -> str:
        """Return whose clock counts. Beyond `AGENTS_MAX` agents, numbers are forged: they share one."""
        clocks = self._state.clocks
        return packet.agent if packet.agent in clocks or len(clocks) < AGENTS_MAX else ""

    def _sweep(self, made: list[bytes | GivenUp]) -> None:
        state = self._state
        state.since_sweep = 0
        for clock in state.clocks.values():
            clock.swept_ms = clock.now_ms
        clocks = {agent: clock.now_ms for agent, clock in state.clocks.items()}
        due = [(call_id, call) for call_id, call in state.calls.items() if call.overdue(clocks[call.agent])]
        for call_id, call in due:
            if call.phase == OVER:
                del state.calls[call_id]
            else:
                self._over(call, made, silently=True)

    def _evict(self, made: list[bytes | GivenUp]) -> None:
        """Make room: first what is over, then attempts, then calls, each the longest silent first."""
        state = self._state
        ranked = sorted(state.calls.items(), key=lambda item: (_EVICTED_AS[item[1].phase], item[1].seen_ms))[
            : max(1, self._calls_max // EVICTED_PART)
        ]
        for call_id, call in ranked:
            del state.calls[call_id]
            if call.phase != OVER:
                state.counts.evicted += 1
                rule = f"a call must end before {self._calls_max} others are open"
                made.append(GivenUp(DeadReason.TRUNCATED, f"{rule}, did not", draft_of(call)))


_EVICTED_AS = {OVER: 0, RETRIED: 1, TRYING: 1, ENDING: 2, UP: 2}
