"""The telco as it stands before the first call: its network and its customers."""

from dataclasses import dataclass

import numpy as np

from bench.simulator.columns import Floats, Ints, generator
from bench.simulator.spec import TelcoSpec

TECHS = ("dsl", "cable", "fiber", "lte", "sip_trunk")
TECH_SHARE = (0.35, 0.25, 0.25, 0.10, 0.05)
TECH_DROPS = (1.2, 0.95, 0.6, 1.5, 0.5)
"""Base drop rate of each technology relative to `TelcoSpec.drop_ratio`."""
TECH_LOSS = (0.0025, 0.0020, 0.0006, 0.0050, 0.0008)
TECH_JITTER_MS = (4.0, 5.0, 2.0, 11.0, 2.0)
TECH_RTT_MS = (45.0, 38.0, 24.0, 72.0, 30.0)

CODECS = ("PCMA", "PCMU", "G729", "AMR", "opus")
CODEC_SHARE = (0.50, 0.14, 0.20, 0.13, 0.03)

TRUNKS = tuple(f"trunk-{name}" for name in ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath"))
SBCS = ("sbc-1", "sbc-2", "sbc-3", "sbc-4")
PROBES = ("probe-north", "probe-east", "probe-south", "probe-signal")
SIGNAL_PROBE = 3
"""This probe sees the signalling only: it reports no media metrics."""

MODELS = ("hg-210", "hg-340", "vox-12", "ata-2", "cube-7", "pbx-40")
FIRMWARES = ("4.1.2", "4.2.0", "4.2.3", "5.0.1", "5.1.0")
"""The last one is rolled out during a run, where the schedule says so: nobody has it before."""
FIRMWARE_SHARE = (0.25, 0.35, 0.30, 0.10)
NEW_FIRMWARE = 4

RESIDENT, BUSINESS, MIXED = 0, 1, 2
CUSTOMERS_PER_NODE = 150
TALK_SIGMA = 1.6
"""With a median of 60 s this log-normal puts 60 % of the calls under 90 s and 84 % under five minutes, near what
Ofcom's 2019 report of call lengths shows (60 % and over 80 %)."""


@dataclass(frozen=True, slots=True)
class Network:
    """Access nodes (one entry each) and where they hang."""

    nodes: tuple[str, ...]
    regions: tuple[str, ...]
    node_region: Ints
    node_tech: Ints
    node_probe: Ints
    region_utc_offset_h: Ints


@dataclass(frozen=True, slots=True)
class Customers:
    """One array entry a customer.

    Attributes:
        calls_per_day: mean attempts on a weekday; heavy-tailed, from one a week to eighty a day.
        rhythm: RESIDENT, BUSINESS or MIXED hours.
        channels: how many calls the customer can hold at once.
        second_share: share of the calls on the second codec and the second SBC.
        drop_ratio: base rate of drops among answered calls.
        contacts: size of the contact list.
        talk_scale: multiplies the median length of a call.
    """

    calls_per_day: Floats
    rhythm: Ints
    channels: Ints
    first_line: Ints
    node: Ints
    utc_offset_h: Ints
    model: Ints
    firmware: Ints
    sbcs: tuple[Ints, Ints]
    codecs: tuple[Ints, Ints]
    second_share: Floats
    drop_ratio: Floats
    redial_ratio: Floats
    contacts: Ints
    talk_scale: Floats
    loss_ratio: Floats
    jitter_ms: Floats
    rtt_ms: Floats
    tenure_days: Ints
    contract_end_ms: Ints
    fee_minor: Ints


@dataclass(frozen=True, slots=True)
class World:
    """Network and customers, and the spec they were drawn from."""

    spec: TelcoSpec
    network: Network
    customers: Customers


def build_world(spec: TelcoSpec) -> World:
    """Draw the network and the customers of a spec."""
    network = _network(spec, generator(spec.seed, 1))
    return World(spec, network, _customers(spec, network, generator(spec.seed, 2)))


def customer_name(customer: int) -> str:
    """Write a customer's id."""
    return f"c{customer:06d}"


def _network(spec: TelcoSpec, rng: np.random.Generator) -> Network:
    count = max(2, spec.customers // CUSTOMERS_PER_NODE)
    regions = min(12, max(2, count // 8))
    tech = rng.choice(len(TECHS), count, p=TECH_SHARE)
    return Network(
        nodes=tuple(f"{TECHS[tech[node]]}-node-{node:04d}" for node in range(count)),
        regions=tuple(f"region-{region:02d}" for region in range(regions)),
        node_region=np.arange(count) % regions,
        node_tech=tech,
        node_probe=rng.choice(len(PROBES), count, p=(0.33, 0.31, 0.31, 0.05)),
        region_utc_offset_h=np.arange(regions) % 3,
    )


def _customers(spec: TelcoSpec, network: Network, rng: np.random.Generator) -> Customers:
    n = spec.customers
    node = rng.integers(len(network.nodes), size=n)
    tech = network.node_tech[node]
    rhythm = rng.choice(3, n, p=(0.72, 0.12, 0.16))
    heavy = (rhythm == BUSINESS) & (rng.random(n) < 0.15)
    calls_per_day = np.clip(2.3 * np.exp(rng.normal(0.0, 1.0, n)), 1 / 7, 60.0)
    calls_per_day = np.where(heavy, rng.uniform(20.0, 80.0, n), calls_per_day)
    channels = 1 + (calls_per_day // 15).astype(np.int64)
    return Customers(
        calls_per_day=calls_per_day,
        rhythm=rhythm,
        channels=channels,
        first_line=np.cumsum(channels) - channels,
        node=node,
        utc_offset_h=network.region_utc_offset_h[network.node_region[node]],
        model=np.where(tech == 4, 5, rng.integers(0, 5, n)),
        firmware=rng.choice(len(FIRMWARE_SHARE), n, p=FIRMWARE_SHARE),
        sbcs=_pairs((0.25,) * len(SBCS), n, rng),
        codecs=_pairs(CODEC_SHARE, n, rng),
        second_share=rng.uniform(0.15, 0.45, n),
        drop_ratio=_skewed(spec.drop_ratio * np.array(TECH_DROPS)[tech], 2.5, rng),
        redial_ratio=_skewed(np.full(n, spec.redial_ratio), 2.0, rng),
        contacts=np.where(heavy, 400, rng.integers(4, 60, n)),
        talk_scale=np.clip(np.exp(rng.normal(0.0, 0.4, n)), 0.3, 3.0),
        loss_ratio=np.array(TECH_LOSS)[tech] * np.exp(rng.normal(0.0, 0.5, n)),
        jitter_ms=np.array(TECH_JITTER_MS)[tech] * np.exp(rng.normal(0.0, 0.3, n)),
        rtt_ms=np.array(TECH_RTT_MS)[tech] * np.exp(rng.normal(0.0, 0.25, n)),
        tenure_days=np.minimum(rng.exponential(1_100.0, n) + 10.0, 7_300.0).astype(np.int64),
        contract_end_ms=spec.start_ms + rng.integers(-200, 530, n) * 86_400_000,
        fee_minor=np.where(rhythm == BUSINESS, rng.integers(40, 180, n), rng.integers(15, 70, n)) * 100 + 99,
    )


def _pairs(share: tuple[float, ...], n: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Draw a main and a different second choice for each customer."""
    first, second = rng.choice(len(share), (2, n), p=share)
    return first, np.where(second == first, (first + 1) % (len(share) - 1), second)


def _skewed(means: Floats, shape: float, rng: np.random.Generator) -> Floats:
    """Draw Beta-distributed rates about `means`: a smaller `shape` spreads them more."""
    means = np.maximum(means, 1e-9)
    return rng.beta(shape, shape * (1.0 / means - 1.0))
