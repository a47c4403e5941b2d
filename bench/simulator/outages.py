"""Drawing the trouble that many customers share: nodes, trunks, SBCs, regions, a bad firmware, lying probes."""

import numpy as np

from bench.simulator.columns import NEVER_MS, Ints, generator
from bench.simulator.endings import HARD, HARD_ENDINGS
from bench.simulator.schedule import Outage, ProbeFault
from bench.simulator.spec import DAY_MS, HOUR_MS, MINUTE_MS
from bench.simulator.world import (
    FIRMWARES,
    MODELS,
    NEW_FIRMWARE,
    SBCS,
    SIGNAL_PROBE,
    TRUNKS,
    World,
)

NODE_OUTAGES_A_YEAR = 2.5
"""Of one access node."""
DAYS_BETWEEN = {"trunk": 7, "sbc": 10, "region": 14, "probe": 8}
"""Mean days between two troubles of these kinds, anywhere in the network."""
BUSY_HOURS_UTC = (7, 21)
"""Outages begin in these hours: at night hardly anybody would notice one."""


def draw_outages(world: World) -> list[Outage]:
    """Draw the outages of a run, without the firmware."""
    rng, network, spec = generator(world.spec.seed, 4), world.network, world.spec
    nodes = rng.poisson(NODE_OUTAGES_A_YEAR * len(network.nodes) * spec.days / 365 * spec.outage_scale)
    picked = rng.permutation(len(network.nodes))[: max(int(nodes), 1 if spec.outage_scale else 0)]
    outages = [_outage(world, "access_node", network.nodes[code], int(code), rng) for code in picked]
    for kind, names in (("trunk", TRUNKS), ("sbc", SBCS), ("region", network.regions)):
        codes = rng.permutation(len(names))[: _count(world, kind)]
        outages += [_outage(world, kind, names[code], int(code), rng) for code in codes]
    return outages


def draw_rollout(world: World) -> tuple[list[Outage], Ints]:
    """Draw a bad firmware that some owners of one CPE model get, for the rest of the run.

    Returns:
        The outage, and per customer when the firmware came. Short runs have none.
    """
    rng, spec = generator(world.spec.seed, 5), world.spec
    firmware_ms = np.full(spec.customers, NEVER_MS)
    if spec.days < 3 or spec.outage_scale == 0:
        return [], firmware_ms
    model = int(rng.integers(len(MODELS) - 1))
    start_ms = spec.start_ms + int(rng.uniform(0.3, 0.7) * spec.days * DAY_MS)
    firmware_ms[(world.customers.model == model) & (rng.random(spec.customers) < 0.2)] = start_ms
    name = f"{MODELS[model]}/{FIRMWARES[NEW_FIRMWARE]}"
    severity, ending = rng.uniform(0.08, 0.15), HARD + int(rng.integers(len(HARD_ENDINGS)))
    outage = Outage("cpe_firmware", name, "firmware", NEW_FIRMWARE, start_ms, spec.end_ms, severity, ending)
    return [outage], firmware_ms


def draw_liars(world: World) -> list[ProbeFault]:
    """Draw the probes that report terrible media for half a day to two days."""
    rng, spec = generator(world.spec.seed, 6), world.spec
    probes = rng.permutation(SIGNAL_PROBE)[: _count(world, "probe")]
    faults = []
    for probe in probes:
        start_ms = spec.start_ms + int(rng.uniform(0.1, 0.9) * spec.days * DAY_MS)
        end_ms = min(spec.end_ms, start_ms + int(rng.uniform(12, 48) * HOUR_MS))
        faults.append(ProbeFault(int(probe), start_ms, end_ms))
    return faults


def _count(world: World, kind: str) -> int:
    return round(world.spec.outage_scale * world.spec.days / DAYS_BETWEEN[kind])


def _outage(world: World, kind: str, name: str, code: int, rng: np.random.Generator) -> Outage:
    """Draw when and how badly: nodes for hours, the rest for less and partly."""
    day = int(rng.integers(world.spec.days))
    start_ms = world.spec.start_ms + day * DAY_MS + int(rng.uniform(*BUSY_HOURS_UTC) * HOUR_MS)
    lasts = (120, 360) if kind == "access_node" else (30, 150)
    severity = rng.uniform(0.3, 0.9) if kind == "access_node" else rng.uniform(0.2, 0.7)
    end_ms = min(world.spec.end_ms, start_ms + int(rng.uniform(*lasts) * MINUTE_MS))
    ending = HARD + int(rng.integers(len(HARD_ENDINGS)))
    column = {"access_node": "node"}.get(kind, kind)
    return Outage(kind, name, column, code, start_ms, end_ms, severity, ending)
