"""Of a User-Agent is kept what it is, never who has it or where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.formats.agents import Agent, agent_of

MAKES = ("Phone", "Acme X1", "Asterisk PBX", "Zoiper", "Grandstream HT802", "Yealink SIP-T46S", "Fanvil X4", "PolyEdge")


@pytest.mark.parametrize(
    ("text", "model", "firmware"),
    [
        ("Yealink SIP-T46G 66.84.0.15", "Yealink SIP-T46G", "66.84.0.15"),
        ("Yealink W60B 77.85.0.25", "Yealink W60B", "77.85.0.25"),
        ("Grandstream HT802 1.0.29.8", "Grandstream HT802", "1.0.29.8"),
        ("snomD785/10.1.84.12", "snomD785", "10.1.84.12"),
        ("snom360/8.2.1", "snom360", "8.2.1"),
        ("snom105-3.56p", "snom105", "3.56p"),
        ("Fanvil X303 2.12.18.9 0c383e63963b", "Fanvil X303", "2.12.18.9"),
        ("Audiocodes-Sip-Gateway-Mediant 3000/v.6.20A.046.005", "Audiocodes-Sip-Gateway-Mediant 3000", "6.20A.046.005"),
        ("AVM FRITZ!Box 7490 113.07.29", "AVM FRITZ!Box 7490", "113.07.29"),
        ("Mitel-6920-SIP/6.4.0.140", "Mitel-6920-SIP", "6.4.0.140"),
        ("Akuvox R20B 220.30.2.28", "Akuvox R20B", "220.30.2.28"),
        ("Htek UC V20 V5.22.10.25.245 f26dcc142f0d", "Htek UC V20", "5.22.10.25.245"),
        ("Htek UC912G 001fc1200b41", "Htek UC912G", None),
        ("Cisco-CP8841/12.5.1", "Cisco-CP8841", "12.5.1"),
        ("Cisco-CP7841-3PCC/11.3.1_0c383e63963b", "Cisco-CP7841-3PCC", "11.3.1"),
        ("Cisco/SPA504G-7.5.2b", "Cisco SPA504G", "7.5.2b"),
        ("PolycomVVX-VVX_411-UA/5.9.0.9373", "PolycomVVX-VVX_411-UA", "5.9.0.9373"),
        ("Gigaset N870 IP PRO/83.V2.43.0+build.5f0a106;7C2F80123456", "Gigaset N870 IP PRO", "83.V2.43.0"),
        ("FreeSWITCH-mod_sofia/1.10.7-release-19-883d2cb662~64bit", "FreeSWITCH-mod_sofia", "1.10.7-release"),
        ("kamailio (5.6.3 (x86_64/linux))", "kamailio", "5.6.3"),
        ("Zoiper", "Zoiper", None),
    ],
)
def test_a_user_agent_is_a_model_and_its_firmware(text, model, firmware):
    assert agent_of(text) == Agent(model, firmware)


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("phone 0A1B2C3D4E5F", "phone"),
        ("phone 10.1.2.3", "phone"),
        ("phone 8.8.8.8", "phone"),
        ("phone 8.8.8.8-5060", "phone"),
        ("phone 1.8.8.8.8", "phone"),
        ("Grandstream HT802 8.8.8.8", "Grandstream HT802"),
        ("Yealink 203.0.113.5", "Yealink"),
        ("softphone/203.0.113.9 (01632960001)", "softphone"),
        ("phone 020.7946.0001", "phone"),
        ("phone 01.23.45.67.89", "phone"),
        ("phone 442071234567.0", "phone"),
        ("phone 555-0134", None),
        ("ext 12345", None),
        ("alice@example.com", None),
        ("<script>", None),
        ("", None),
    ],
)
def test_who_has_it_and_where_is_left_out(text, model):
    assert agent_of(text) == Agent(model, None)


@given(
    st.sampled_from(MAKES),
    st.sampled_from((" ", "/", " v", "-", "_", " (", "/v.", " rv", ":")),
    st.lists(st.integers(0, 255), min_size=4, max_size=4).filter(lambda octets: octets[0] > 11 and octets[1] < 60),
    st.sampled_from(("", ")", "-5060", ":5060", " (x)", ".1", "a", "_2", "/1.2.3", ";x")),
)
def test_no_make_and_no_way_to_write_it_lets_an_address_through(make, before, octets, behind):
    address = ".".join(map(str, octets))
    agent = agent_of(f"{make}{before}{address}{behind}")
    assert address not in f"{agent.model} {agent.firmware}"


@given(
    st.sampled_from(MAKES),
    st.sampled_from((" ", "/", " v", "-", "_", " (", "/v.")),
    st.from_regex(r"[+]?[0-9]{7,15}|0[1-9](?:[.][0-9]{2}){4}|[0-9]{3}-[0-9]{3}-[0-9]{4}|[0-9a-f]{12}", fullmatch=True),
    st.sampled_from(("", ")", ".0", ".1.2", "_1", " 1.2.3", "-UA")),
)
def test_nor_a_number_or_a_hardware_address(make, before, number, behind):
    agent = agent_of(f"{make}{before}{number}{behind}")
    assert number.lstrip("+") not in f"{agent.model} {agent.firmware}"
