"""Whose event a call is, and what the event says.

Of one call up to two events are made, one for each party that is a customer: `out` for the caller, `in` for the callee.
Their call ids differ; each is the same from every probe and on every reading.
"""

import ipaddress
from typing import Any

import msgspec
import orjson

from schemas.errors import ConfigError
from schemas.events import Releaser
from schemas.formats import calls as events
from schemas.formats.hep.calls import Call, Side
from schemas.formats.hep.packets import Packet
from schemas.formats.hep.sip import q850_of
from schemas.formats.identity import Tokens


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


def reporter(call: Call, packet: Packet) -> Side | None:
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


def call_id_of(call: Call, side: Side) -> str:
    """Return the id of one party's side of a call."""
    return f"{call.name}.{'out' if side is call.caller else 'in'}"


def call_event(call: Call, side: Side) -> events.Call:
    """Make the `call` event of one party."""
    is_caller = side is call.caller
    peer = call.callee if is_caller else call.caller
    # Copies of one message may come from probes whose clocks differ a little.
    answer_ms = None if call.answer_ms is None else max(call.answer_ms, call.start_ms)
    return events.Call(
        call_id_of(call, side),
        "" if side.token is None else side.token,  # of a draft alone: events are of customers, who have one
        call.start_ms,
        max(call.end_ms, call.start_ms if answer_ms is None else answer_ms),
        answer_ms,
        "out" if is_caller else "in",
        peer.token,
        sip_status=call.status,
        q850=q850_of(call.reason) if call.reason else None,
        reason=call.reason or None,
        released_by=_releaser(call, is_caller=is_caller),
        codec=call.codec or None,
        cpe_model=side.model,
        cpe_firmware=side.firmware,
        probe_id=call.agent or None,
        **({} if answer_ms is None else side.ear.summary(peer.ear)),
    )


def media_event(call: Call, side: Side, at_ms: int, interval_ms: int, agent: str, said: dict[str, Any]) -> events.Media:
    """Make the `media` event of one report; `said` is what it reports."""
    return events.Media(
        call_id_of(call, side),
        "" if side.token is None else side.token,
        at_ms,
        interval_ms,
        codec=call.codec or None,
        probe_id=agent or None,
        **said,
    )


def _releaser(call: Call, *, is_caller: bool) -> Releaser | None:
    if call.by_network():
        return "network"
    if call.released_by_caller or call.canceled:
        return "customer" if is_caller else "peer"
    if call.released_by_callee:
        return "peer" if is_caller else "customer"
    return None if call.answer_ms is None else "unknown"


def draft_of(call: Call) -> bytes:
    """Show what is known of a call that becomes no event: tokens and times."""
    known = msgspec.to_builtins(call_event(call, call.caller))
    return orjson.dumps({name: value for name, value in known.items() if name != "end_ms" and value != ""})
