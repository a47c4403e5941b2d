"""The table of open calls, and the events that come out of it.

Time is each probe's own, as its packets have it: a wrong clock of one probe ends no call of another one. A time is
believed when it lies within an hour of the packet before, so that one corrupted packet moves no clock.

Of one call up to two events are made, one for each party that is a customer: `out` for the caller, `in` for the callee.
Their call ids differ; each is the same from every probe and on every reading.
"""

import ipaddress
from typing import Any

import msgspec
import orjson
from msgspec import Struct, field

from schemas.deadletters import DeadReason
from schemas.errors import ConfigError
from schemas.formats import Tokens
from schemas.formats.hep.calls import Call, Phase, Side, opened
from schemas.formats.hep.media import Report, read_report
from schemas.formats.hep.packets import RTCP_JSON, SIP, Packet
from schemas.formats.hep.sip import Message, q850_of, read_message

CALLS_MAX = 250_000
"""Calls in the table: ten million customers in their busy hour (133 attempts a second and million, three minutes each).
Some half a gigabyte."""

EVICTED_PART = 16
"""A full table gives up this part of its calls at once: looking for the right ones costs a pass over all."""

AGENTS_MAX = 4_096
"""Agents that have a clock of their own."""

SWEEP_MS = 10_000
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


class Customers:
    """Who of the two parties is a customer.

    Without networks both are, the callee only if the callee's end was found at all. With networks, the caller is one
    whose INVITE came from there, and the callee one to whom an INVITE was sent there.

    Args:
        tokens: turns identities into pseudonyms.
        networks: where customers' equipment is, as `10.0.0.0/8`.

    Raises:
        ConfigError: a network is none.
    """

    def __init__(self, tokens: Tokens, networks: tuple[str, ...] = ()) -> None:
        self.tokens = tokens
        try:
            self._networks = [ipaddress.ip_network(text) for text in networks]
        except ValueError:
            raise ConfigError(["input.hep.customer_networks: must hold address ranges such as 10.0.0.0/8"]) from None

    def of(self, call: Call) -> list[Side]:
        """Return the sides of a call that are customers and have a name."""
        if self._networks:
            sides = [(call.caller, self._inside(call.senders)), (call.callee, self._inside(call.receivers))]
        else:
            sides = [(call.caller, True), (call.callee, call.reached)]
        return [side for side, counts in sides if counts and side.token is not None]

    def _inside(self, places: list[bytes]) -> bool:
        addresses = [ipaddress.ip_address(place[:-2]) for place in places]
        return any(address in network for address in addresses for network in self._networks)


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
            if call.phase == Phase.OVER:
                continue
            if overdue or call.is_decided():
                self._over(call, made, silently=overdue)
            else:
                rule = "a call must have ended when the input ends"
                made.append(GivenUp(DeadReason.TRUNCATED, f"{rule}, had not", _draft(call)))
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
        if call is None or (begins and call.phase == Phase.OVER and call.renewed_by(message)):
            if not begins:
                # Requests outside any dialog (OPTIONS, MESSAGE...) have no call either.
                self._state.counts.strays += bool(message.to_tag)
                return
            call = self._opened(packet, message, call, made)
        if call.phase == Phase.OVER:
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
        side = _reporter(call, packet)
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
            event = {
                "type": "media",
                "call_id": _call_id(call, side),
                "customer_id": side.token,
                "at_ms": packet.at_ms,
                "interval_ms": interval_ms,
                "codec": call.codec or None,
                **said,
                "probe_id": packet.agent or None,
            }
            made.append(_line(event))

    def _over(self, call: Call, made: list[bytes | GivenUp], *, silently: bool = False) -> None:
        if silently:
            self._state.counts.expired += call.phase in {Phase.TRYING, Phase.UP}
            call.conclude()
        call.phase = Phase.OVER
        sides = self._customers.of(call)
        made += [_line(_event(call, side)) for side in sides]
        self._state.counts.foreign += not sides

    def _tick(self, packet: Packet, made: list[bytes | GivenUp]) -> None:
        """Move the clock of the packet's probe, and look for calls that are overdue when it is time."""
        state = self._state
        state.since_sweep += 1
        at_ms = packet.at_ms
        agent = self._agent(packet)
        clock = state.clocks.get(agent)
        if clock is None:
            clock = state.clocks[agent] = _Clock(at_ms, at_ms, at_ms)
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
            if call.phase == Phase.OVER:
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
            if call.phase != Phase.OVER:
                state.counts.evicted += 1
                rule = f"a call must end before {self._calls_max} others are open"
                made.append(GivenUp(DeadReason.TRUNCATED, f"{rule}, did not", _draft(call)))


_EVICTED_AS = {Phase.OVER: 0, Phase.RETRIED: 1, Phase.TRYING: 1, Phase.ENDING: 2, Phase.UP: 2}


def _reporter(call: Call, packet: Packet) -> Side | None:
    """Return the side that sent a report; None where the addresses do not tell.

    RTCP comes from the port behind that of RTP (RFC 3550, section 11), or from the same one (RFC 5761). Behind a NAT
    the sender's address is not the one it announced, the receiver's still is.
    """
    caller, callee = call.caller, call.callee
    ways = ((packet.source, caller, callee), (packet.target, callee, caller))
    for place, if_callers, if_callees in ways:
        below = place[:-2] + max(int.from_bytes(place[-2:], "big") - 1, 0).to_bytes(2, "big")
        if place in caller.places or below in caller.places:
            return if_callers
        if place in callee.places or below in callee.places:
            return if_callees
    for place, if_callers, if_callees in ways:
        at_caller, at_callee = (any(one[:-2] == place[:-2] for one in side.places) for side in (caller, callee))
        if at_caller != at_callee:
            return if_callers if at_caller else if_callees
    return None


def _call_id(call: Call, side: Side) -> str:
    return f"{call.name}.{'out' if side is call.caller else 'in'}"


def _event(call: Call, side: Side) -> dict[str, Any]:
    """Make the `call` event of one party."""
    is_caller = side is call.caller
    peer = call.callee if is_caller else call.caller
    # Copies of one message may come from probes whose clocks differ a little.
    answer_ms = None if call.answer_ms is None else max(call.answer_ms, call.start_ms)
    return {
        "type": "call",
        "call_id": _call_id(call, side),
        "customer_id": side.token,
        "start_ms": call.start_ms,
        "answer_ms": answer_ms,
        "end_ms": max(call.end_ms, call.start_ms if answer_ms is None else answer_ms),
        "direction": "out" if is_caller else "in",
        "peer_id": peer.token,
        "sip_status": call.status,
        "q850": q850_of(call.reason),
        "reason": call.reason or None,
        "released_by": _releaser(call, is_caller=is_caller),
        "codec": call.codec or None,
        **(side.ear.summary(peer.ear) if answer_ms is not None else {}),
        "cpe_model": side.model,
        "cpe_firmware": side.firmware,
        "probe_id": call.agent or None,
    }


def _releaser(call: Call, *, is_caller: bool) -> str | None:
    if call.by_network():
        return "network"
    if call.released_by_caller or call.canceled:
        return "customer" if is_caller else "peer"
    if call.released_by_callee:
        return "peer" if is_caller else "customer"
    return None if call.answer_ms is None else "unknown"


def _line(event: dict[str, Any]) -> bytes:
    return orjson.dumps({name: value for name, value in event.items() if value is not None})


def _draft(call: Call) -> bytes:
    """Show what is known of a call that becomes no event: tokens and times."""
    return _line(_event(call, call.caller) | {"end_ms": None})
