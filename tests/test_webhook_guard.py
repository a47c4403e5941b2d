"""A webhook reaches public addresses, and of the others only what its operator opened."""

import asyncio
import ipaddress

import hypothesis.strategies as st
import pytest
from hypothesis import given

from schemas.errors import ConfigError
from sinks.webhook.guard import (
    AddressRefusedError,
    check_literal,
    parse_networks,
    parse_url,
    refusal,
    system_resolver,
    vetted_addresses,
)

HOSTILE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::2",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "::ffff:224.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:a00:1::1",
    "2001:2::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2002:a9fe:a9fe::1",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "172.15.0.1",
    "172.32.0.1",
    "2606:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
]

EVERYTHING = parse_networks(["0.0.0.0/0", "::/0"])
NEVER = ["0.0.0.0", "::", "224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1", "fe80::1%eth0", "::ffff:224.0.0.1"]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_address_is_refused(text):
    assert refusal(ipaddress.ip_address(text), ()) is not None


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_may_be_reached_over_tls_only(text):
    assert refusal(ipaddress.ip_address(text), ()) is None
    assert refusal(ipaddress.ip_address(text), EVERYTHING, loopback_only=True) is not None


@pytest.mark.parametrize("text", NEVER)
def test_what_is_nobodys_address_is_never_reached(text):
    assert refusal(ipaddress.ip_address(text), EVERYTHING) is not None


def test_an_opened_range_opens_itself_and_nothing_beside_it():
    allowed = parse_networks(["10.1.0.0/16", "fd12::/48"])
    assert refusal(ipaddress.ip_address("10.1.2.3"), allowed) is None
    assert refusal(ipaddress.ip_address("::ffff:10.1.2.3"), allowed) is None
    assert refusal(ipaddress.ip_address("fd12::5"), allowed) is None
    for beside in ("10.2.0.1", "127.0.0.1", "fd13::5", "169.254.169.254", "64:ff9b::a01:203"):
        assert refusal(ipaddress.ip_address(beside), allowed) is not None


def test_a_translator_that_was_opened_still_leads_to_no_inside():
    allowed = parse_networks(["64:ff9b::/96", "2002::/16"])
    assert refusal(ipaddress.ip_address("64:ff9b::808:808"), allowed) is None
    assert refusal(ipaddress.ip_address("64:ff9b::7f00:1"), allowed) is not None
    assert refusal(ipaddress.ip_address("2002:a9fe:a9fe::1"), allowed) is not None


@given(st.ip_addresses())
def test_nothing_that_python_calls_private_passes(address):
    if address.is_private or address.is_loopback or address.is_link_local or address.is_multicast:
        mapped = getattr(address, "ipv4_mapped", None)
        assert (mapped or address).is_global or refusal(address, ()) is not None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://crm.example/", "must begin with https://"),
        ("crm.example/hooks", "must begin with https://"),
        ("https://user:pass@crm.example/", "no user name or password"),
        ("https://crm.example@127.0.0.1/", "no user name or password"),
        ("https://", "must have a host name"),
        ("https:///hooks", "must have a host name"),
        ("https://crm.example:0/", "port from 1 to 65535"),
        ("https://crm.example:99999/", "port from 1 to 65535"),
        ("https://crm.example:x/", "port from 1 to 65535"),
        ("https://crm..example/", "must have a host name"),
        (f"https://{'a' * 64}.example/", "must have a host name"),
        (f"https://{'abc.' * 64}example/", "must have a host name"),
        ("https://[::1/", "port from 1 to 65535"),
        ("https://[fe80::1%25eth0]/", "must have a host name"),
        ("https://crm.example/#there", "no fragment"),
        ("https://crm.example\\@127.0.0.1/", "without spaces and backslashes"),
        ("https://crm.example/a b", "without spaces and backslashes"),
        ("https://crm.example/\r\nx: y", "without spaces and backslashes"),
        ("https://krm.exämple/", "printable ASCII"),
        ("https://127.0.0.1%2f@crm.example", "no user name"),
    ],
)
def test_a_url_that_two_readers_might_read_differently_is_refused(url, problem):
    with pytest.raises(ConfigError, match=problem):
        parse_url(url)


def test_the_parts_of_a_good_url():
    place = parse_url("https://CRM.example/hooks/x?tenant=west")
    assert (place.host, place.port, place.target, place.authority) == (
        "crm.example", 443, "/hooks/x?tenant=west", "crm.example",
    )  # fmt: skip
    assert parse_url("https://[2606:4700::1]:8443").authority == "[2606:4700::1]:8443"
    assert parse_url("https://[2606:4700::1]").target == "/"


@pytest.mark.parametrize(
    "url",
    ["https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/latest", "http://8.8.8.8/", "http://10.0.0.1/"],
)
def test_an_address_in_a_url_is_tested_before_anything_is_sent(url):
    with pytest.raises(ConfigError, match="url must not lead to"):
        check_literal(parse_url(url), ())


def test_every_wrong_range_is_listed():
    with pytest.raises(ConfigError) as caught:
        parse_networks(["10.0.0.0/8", "10.0.0.1/8", "ten"])
    assert len(caught.value.problems) == 2


def resolved(url: str, addresses: list[str], allowed: tuple[str, ...] = ()) -> list[str]:
    async def resolver(_host: str, _port: int) -> list[str]:
        return addresses

    return asyncio.run(vetted_addresses(parse_url(url), parse_networks(allowed), resolver))


def test_a_name_with_one_private_address_among_public_ones_is_refused_whole():
    assert resolved("https://crm.example/", ["8.8.8.8", "2606:4700::1111"]) == ["8.8.8.8", "2606:4700::1111"]
    with pytest.raises(AddressRefusedError, match=r"crm\.example must not stand for 10\.0\.0\.1"):
        resolved("https://crm.example/", ["8.8.8.8", "10.0.0.1"])


def test_a_name_without_tls_must_stand_for_loopback_that_was_opened():
    assert resolved("http://localhost/", ["127.0.0.1"], ("127.0.0.0/8",)) == ["127.0.0.1"]
    for addresses, allowed in ((["127.0.0.1"], ()), (["8.8.8.8"], ()), (["10.0.0.1"], ("10.0.0.0/8",))):
        with pytest.raises(AddressRefusedError):
            resolved("http://localhost/", addresses, allowed)


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1"])
def test_other_ways_to_write_an_address_meet_the_same_test(host):
    async def found() -> list[str]:
        return await vetted_addresses(parse_url(f"https://{host}/"), (), system_resolver())

    with pytest.raises(AddressRefusedError, match=r"127\.0\.0\.1"):
        asyncio.run(found())
