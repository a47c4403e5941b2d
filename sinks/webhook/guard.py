"""Where a webhook may go: no receiver's name or answer may lead a call to somebody else's inside.

Server-side request forgery: OWASP Top 10 (2021), A10. The addresses a name stands for are tested, all of them, and
the connection is made to a tested one, so that a name which changes its mind (DNS rebinding) gains nothing.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from msgspec import Struct

from schemas.errors import ConfigError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Awaitable[list[str]]]
"""Gives the addresses of a host and port, best first. Raises OSError where there are none."""

LOOKUPS_MAX = 2
"""Names looked up at once for one output: it has one name, and connections are kept."""

SPECIAL: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",  # IETF protocol assignments (RFC 6890)
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "2001::/23",  # IETF protocol assignments (RFC 2928), Teredo among them
        "2001:db8::/32",  # documentation (RFC 3849)
        "2002::/16",  # 6to4 (RFC 3056): an IPv4 address in disguise
        "3fff::/20",  # documentation (RFC 9637)
    )
)
"""Ranges where no public receiver lives, though `is_global` of some Python release says so."""

GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All of IPv6 that was ever given out (IANA, "IPv6 Global Unicast Address Assignments")."""

NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""Leads to the IPv4 address in its last 32 bits (RFC 6052)."""


_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?|[0-9a-f.]*:[0-9a-f:.]*")
"""A name in ASCII (RFC 1035, section 2.3.4), or an address of either kind."""


class AddressRefusedError(Exception):
    """A receiver's name stands for an address that it must not."""


class Place(Struct, frozen=True):
    """Where a webhook goes: the parts of its URL.

    Attributes:
        host: a name, or an address without brackets.
        target: path and query.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The `Host` header's value."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"https": 443, "http": 80}[self.scheme] else f"{host}:{self.port}"


def parse_url(url: str) -> Place:
    """Take a webhook's URL apart.

    Raises:
        ConfigError: it is not `https` (or, to loopback, `http`), or holds what makes readers of URLs disagree.
    """
    if not re.fullmatch(r"[!-~]+", url) or "\\" in url:
        raise ConfigError([f"url must be printable ASCII without spaces and backslashes, was {url!r}"])
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError([f"url must have a host and a port from 1 to 65535, was {url!r}"]) from error
    if parts.scheme not in {"https", "http"}:
        raise ConfigError([f"url must begin with https://, was {url!r}"])
    if "@" in parts.netloc:
        raise ConfigError(["url must hold no user name or password; the signature is the proof of origin"])
    if not host or not _HOST.fullmatch(host) or port == 0:
        raise ConfigError([f"url must have a host name or address and a port from 1 to 65535, was {url!r}"])
    if "#" in url:
        raise ConfigError([f"url must have no fragment, was {url!r}"])
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(parts.scheme, host, port or {"https": 443, "http": 80}[parts.scheme], target)


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Read the private address ranges that an output may reach.

    Raises:
        ConfigError: one is no address range; every such one is listed.
    """
    networks, problems = [], []
    for text in texts:
        try:
            networks.append(ipaddress.ip_network(text))
        except ValueError as error:
            problems.append(f"allow_networks must hold address ranges such as 10.0.0.0/8, found {text!r}: {error}")
    if problems:
        raise ConfigError(problems)
    return tuple(networks)


def check_literal(place: Place, allowed: Sequence[Network]) -> None:
    """Test a URL's host at once where it is an address; a name is tested at every connection.

    Raises:
        ConfigError: a webhook must not go there.
    """
    try:
        address = ipaddress.ip_address(place.host)
    except ValueError:
        return
    why = refusal(address, allowed, loopback_only=place.scheme == "http")
    if why is not None:
        raise ConfigError([f"url must not lead to {address}: {why}"])


def refusal(address: Address, allowed: Sequence[Network], *, loopback_only: bool = False) -> str | None:
    """Return why a webhook must not go to an address, None if it may.

    Args:
        address: where it would connect to.
        allowed: private ranges that the operator opened.
        loopback_only: for plain `http`, which may not leave the machine.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return "an address with a scope"
        if address.ipv4_mapped is not None:
            return refusal(address.ipv4_mapped, allowed, loopback_only=loopback_only)
        hidden = _embedded(address)
        if hidden is not None and (why := refusal(hidden, allowed)) is not None:
            return f"{why}, hidden in IPv6"
    if address.is_multicast or address.is_unspecified:
        return "a multicast or unspecified address"
    if loopback_only and not address.is_loopback:
        return "not loopback, which is all that http:// may reach"
    if any(address in network for network in allowed):
        return None
    given_out = address.version == 4 or address in GLOBAL_UNICAST
    if not (given_out and address.is_global) or any(address in network for network in SPECIAL):
        return "a private or special address, in none of allow_networks"
    return None


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that a transition mechanism would connect to."""
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def system_resolver() -> Resolver:
    """Return a resolver that asks the system, in threads of its own: a name server that hangs hangs one output."""
    threads = ThreadPoolExecutor(LOOKUPS_MAX, thread_name_prefix="resolver")

    def look_up(host: str, port: int) -> list[str]:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]

    async def resolve(host: str, port: int) -> list[str]:
        return await asyncio.get_running_loop().run_in_executor(threads, look_up, host, port)

    return resolve


async def vetted_addresses(place: Place, allowed: Sequence[Network], resolver: Resolver) -> list[str]:
    """Return the addresses of a place, every one of them fit to connect to.

    Raises:
        AddressRefusedError: one of them is not: a name that mixes public and private addresses is a trick.
        OSError: there is none.
    """
    found = await resolver(place.host, place.port)
    for text in found:
        why = refusal(ipaddress.ip_address(text), allowed, loopback_only=place.scheme == "http")
        if why is not None:
            raise AddressRefusedError(f"{place.host} must not stand for {text}: {why}")
    return found
