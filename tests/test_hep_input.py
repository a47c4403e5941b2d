import base64
import itertools
import random
import signal
import socket
import struct
from pathlib import Path

import pytest
from hep_kit import MONDAY_MS, TOKENS, Dialog, keepalive, letters, read
from hypothesis import given
from hypothesis import strategies as st
from run_kit import Program, lines, until
from test_hep_format import traffic
from test_run import FILE_OUTPUT, METRICS, deployed, figures

from dataflows.config import load, runnable
from dataflows.inputs.chunks import decoded
from dataflows.inputs.hep import Framer, Listener, Source
from dataflows.inputs.spool import Spool
from detectors.engine import RiskEngine
from detectors.remedies.catalogue import Catalogue, default_catalogue_text
from detectors.settings import Settings
from schemas.decode import Decoder, decode
from schemas.errors import ConfigError, StateError
from schemas.formats import Converted
from schemas.formats.hep import HepReader
from schemas.formats.hep.events import Customers
from schemas.formats.identity import NumberPlan, Tokens

DAY_MS = 86_400_000
KEY = "k" * 32
HEP_INPUT = 'kind = "hep"\nhep = { listen = "127.0.0.1:0" }\ntokens = { secret_file = "key" }'


def fresh():
    return HepReader(Customers(TOKENS))


def packets_of(data):
    """Cut a stream of whole packets."""
    found = []
    while data:
        size = struct.unpack_from(">H", data, 4)[0]
        found.append(data[:size])
        data = data[size:]
    return found


def given_by(source, place=None):
    """Read what there is; return each cut's events, rejects and place."""
    told = []
    for cut in source.read(place):
        if cut is None:
            return told
        told.append((cut.chunk.data.split(b"\n") if cut.chunk.data else [], cut.chunk.rejects, cut.place))
    raise AssertionError("a spool has no end")


def filled(folder, packets, batch=7):
    """Lay packets into a spool of tiny segments."""
    spool = Spool(folder / "spool", segment_bytes=12_000)
    for at in range(0, len(packets), batch):
        spool.append(base64.b64encode(b"".join(packets[at : at + batch])))
    return spool


def broken(packets, seed):
    """Replace some packets by what a listener makes of broken ones."""
    rng = random.Random(seed)  # noqa: S311  seeded, not secret
    made = []
    for packet in packets:
        if rng.random() < 0.1:
            made += Framer().feed(rng.choice([b"HEP3\xff\xff" + packet[6:40], b"junk" * 5]) + b"HEP3")
        made.append(packet)
    return made


class TestSource:
    @pytest.mark.parametrize("seed", [1, 2])
    def test_read_again_from_any_place_nothing_is_lost_or_doubled(self, tmp_path, seed, monkeypatch):
        monkeypatch.setattr("dataflows.inputs.spool.CHUNK_BYTES", 6_000)
        spool = filled(tmp_path, broken(packets_of(traffic(seed, 40)), seed))
        assert spool._end[0] > 5
        told = given_by(Source(spool, tmp_path / "calls", fresh()))
        assert sum(len(made) for made, _, _ in told) > 50
        assert sum(len(rejects) for _, rejects, _ in told) > 3
        for at in range(seed, len(told), 5):
            again = given_by(Source(spool, tmp_path / "calls", fresh()), told[at][2])
            for part in (0, 1):
                rest = [one for cut in again for one in cut[part]]
                assert rest == [one for cut in told[at + 1 :] for one in cut[part]], at
            # A checkpoint taken while it reads again does not go back.
            assert all(cut[2] >= told[at][2] for cut in again)

    def test_what_checkpoints_have_passed_is_deleted_and_is_not_needed(self, tmp_path):
        spool = filled(tmp_path, packets_of(traffic(3, 40)))
        source = Source(spool, tmp_path / "calls", fresh())
        told = given_by(source)
        middle = told[len(told) // 2][2]
        source.passed(middle)
        assert min(int(path.stem) for path in (tmp_path / "spool").iterdir()) == middle.file
        assert min(int(path.stem) for path in (tmp_path / "calls").iterdir()) == middle.file
        again = given_by(Source(Spool(tmp_path / "spool"), tmp_path / "calls", fresh()), middle)
        assert [made for cut in again for made in cut[0]] == [
            made for cut in told[len(told) // 2 + 1 :] for made in cut[0]
        ]

    def test_damage_is_refused(self, tmp_path):
        spool = filled(tmp_path, packets_of(traffic(3, 40)))
        *_, (_, _, place) = given_by(Source(spool, tmp_path / "calls", fresh()))
        (tmp_path / "calls" / f"{place.file:012d}.calls").write_bytes(b"\x93")
        with pytest.raises(StateError, match="undamaged table"):
            given_by(Source(spool, tmp_path / "calls", fresh()), place)
        with pytest.raises(StateError, match="bytes read of it before"):
            given_by(Source(spool, tmp_path / "calls", fresh()), place._replace(offset=1 << 30))
        spool.append(b'{"type":"call"}')
        with pytest.raises(StateError, match="spool of HEP packets"):
            given_by(Source(spool, tmp_path / "calls", fresh()))

    def test_a_chunk_without_events_is_an_empty_batch(self, tmp_path):
        source = Source(filled(tmp_path, [keepalive(MONDAY_MS)]), tmp_path / "calls", fresh())
        cut = next(source.read(None))
        batch, dead = decoded(Decoder(), cut.chunk)
        assert (batch.records, dead, cut.place.line) == (0, [], 0)


class TestFramer:
    @given(
        seed=st.integers(0, 3),
        junk=st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=30)), max_size=4),
        cuts=st.lists(st.integers(0, 1 << 30), max_size=6),
    )
    def test_packets_come_whole_whatever_lies_between_them_and_wherever_it_is_cut(self, seed, junk, cuts):
        packets = packets_of(traffic(seed, 3))
        mixed = list(packets)
        for at, one in junk:
            mixed.insert(at % (len(mixed) + 1), one)
        data = b"".join(mixed)
        framer, edges = Framer(), sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        found = [one for low, high in itertools.pairwise(edges) for one in framer.feed(data[low:high])]
        found += framer.finish()
        assert [one for one in found if one in packets] == packets
        # Each is a packet as far as its own length goes: what lies beside it in the spool is safe.
        assert all(one[:4] == b"HEP3" and struct.unpack_from(">H", one, 4)[0] == len(one) for one in found)

    def test_a_length_that_lies_costs_its_own_packet_alone(self):
        good = packets_of(traffic(1, 3))
        for more in (-7, -1, 1, 7, 400):
            lying = b"HEP3" + struct.pack(">H", len(good[0]) + more) + good[0][6:]
            framer = Framer()
            found = list(framer.feed(lying + b"".join(good)))
            assert found[-len(good) :] == good, more


class TestListener:
    def test_udp_and_tcp_come_into_the_spool_as_they_are(self, tmp_path):
        spool = Spool(tmp_path / "spool")
        listener = Listener(spool, "127.0.0.1", 0)
        listener.start()
        packets = packets_of(traffic(2, 8))
        host, _, port = listener.address.rpartition(":")
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            socket.create_connection((host, int(port))) as tcp,
        ):
            for packet in packets[::2]:
                udp.sendto(packet, (host, int(port)))
            udp.sendto(b"junk", (host, int(port)))
            udp.sendto(b"HEP3\x00\x06" + packets[0][6:], (host, int(port)))
            tcp.sendall(b"".join(packets[1::2]) + b"HEP3\xff")
        until(lambda: listener.received >= len(packets) + 3, "the last packet")
        listener.stop()
        assert listener.dropped() is None  # closed
        taken = b"".join(base64.b64decode(line) for path in (tmp_path / "spool").iterdir() for line in lines(path))
        found = packets_of(taken)
        assert sorted(one for one in found if one in packets) == sorted([*packets, packets[0]])
        assert (
            sorted(letter.reason for letter in letters(read(taken)) if letter.reason != "truncated")
            == ["missing_field"] * 2
        )

    @pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the kernel's list of timers is Linux's")
    def test_an_agent_that_lost_its_power_does_not_hold_its_place(self, tmp_path):
        listener = Listener(Spool(tmp_path / "spool"), "127.0.0.1", 0)
        listener.start()
        host, _, port = listener.address.rpartition(":")
        here = f"0100007F:{int(port):04X}"

        def asked():
            rows = map(str.split, Path("/proc/net/tcp").read_text().splitlines())
            return any(row[1] == here and row[3] == "01" and row[5].startswith("02:") for row in rows)

        with socket.create_connection((host, int(port))):
            until(asked, "the timer that asks whether the peer is there")
        listener.stop()

    def test_the_kernels_own_count_of_what_it_dropped_is_told(self, tmp_path):
        listener = Listener(Spool(tmp_path / "spool"), "127.0.0.1", 0)
        # Not started: nobody takes what comes.
        listener._udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        assert listener.dropped() == 0
        host, _, port = listener.address.rpartition(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            for _ in range(200):
                udp.sendto(b"x" * 1_000, (host, int(port)))
        assert listener.dropped() > 100
        listener.start()
        listener.stop()

    def test_a_drain_that_dies_is_replaced(self, tmp_path):
        listener = Listener(Spool(tmp_path / "spool"), "127.0.0.1", 0)
        listener.start()
        host, _, port = listener.address.rpartition(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(keepalive(MONDAY_MS), (host, int(port)))
            until(lambda: listener.received == 1, "the first packet")
            first = listener._drain
            first.kill()
            udp.sendto(keepalive(MONDAY_MS), (host, int(port)))
            until(lambda: listener.received == 2, "the packet after it")
        listener.stop()
        assert (first.returncode, listener._drain.returncode) == (-signal.SIGKILL, 0)

    def test_what_waits_in_the_drain_is_written_before_the_end(self, tmp_path):
        spool = Spool(tmp_path / "spool")
        listener = Listener(spool, "127.0.0.1", 0)
        host, _, port = listener.address.rpartition(":")
        packets = packets_of(traffic(2, 8))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            for packet in packets:
                udp.sendto(packet, (host, int(port)))
        listener.start()
        listener.stop()
        assert (listener.received, listener.lost) == (len(packets), 0)
        taken = b"".join(base64.b64decode(line) for path in (tmp_path / "spool").iterdir() for line in lines(path))
        assert packets_of(taken) == packets

    def test_a_full_spool_loses_nothing_that_was_taken(self, tmp_path):
        spool = Spool(tmp_path / "spool", bytes_max=10)
        listener = Listener(spool, "127.0.0.1", 0)
        listener.start()
        host, _, port = listener.address.rpartition(":")
        with socket.create_connection((host, int(port))) as tcp:
            tcp.sendall(keepalive(MONDAY_MS))
            until(lambda: listener.received == 1, "the packet")
            spool._bytes_max = 1 << 20
            until(lambda: spool.total_bytes, "room")
        listener.stop()
        assert listener.lost == 0

    def test_a_taken_address_is_refused(self, tmp_path):
        listener = Listener(Spool(tmp_path / "spool"), "127.0.0.1", 0)
        port = int(listener.address.rpartition(":")[2])
        with pytest.raises(ConfigError, match="must be a free address"):
            Listener(Spool(tmp_path / "other"), "127.0.0.1", port)
        listener.start()
        listener.stop()


def troubled(days):
    """The packets of two customers, one of whom is cut off again and again, in order of time."""
    timed = []
    for day in range(days):
        for k in range(4):
            for name, reason in (("02079460001", "RELEASE_CAUSE;cause=3"), ("02079460002", "Q.850;cause=16")):
                begin_ms = MONDAY_MS + day * DAY_MS + k * 3_600_000
                dialog = Dialog(call_id=f"{day}-{k}-{name}", caller=f"<sip:{name}@x>", callee=f"<sip:{900 + k}@x>")
                up_ms = dialog.answered(begin_ms)
                dialog.released(up_ms + 100_000 + 7_000 * k, f"Reason: {reason}")
                for packet in dialog.packets:
                    timed.append((begin_ms, len(timed), packet))
    return [packet for *_, packet in sorted(timed)]


class TestRun:
    def test_packets_become_alerts_and_a_kill_loses_none(self, tmp_path):
        packets = troubled(10)
        reader = HepReader(Customers(Tokens(KEY.encode(), NumberPlan())))
        items = reader.feed(b"".join(packets))
        engine = RiskEngine(Settings("test"), Catalogue.load(default_catalogue_text()))
        data = b"\n".join(item.line for item in items if isinstance(item, Converted))
        expected = [one.body for one in engine.apply(decode(data))]
        assert expected
        (tmp_path / "key").write_text(KEY)
        deployed(tmp_path, None, input_=HEP_INPUT, outputs=FILE_OUTPUT, more=METRICS)
        assert runnable(load(tmp_path / "c.toml", {})) == []
        rng, program, step = random.Random(5), None, 150  # noqa: S311  seeded, not secret
        for at in range(0, len(packets), step):
            if program is None or not program.running():
                program = Program(tmp_path, "run", "-c", "c.toml", epoch_ms=rng.choice([5, 50]), segment_bytes=20_000)
            part = packets[at : at + step]
            self.send(program, part, by_tcp=at % (2 * step) == 0)
            metrics = program.address("metrics")
            # Read means: on disk. The table knows how many, the restarts included.
            until(lambda: self.count(metrics, "read_packets_total") >= at + len(part), "the packets")  # noqa: B023
            if at in {0, 2 * step}:
                program.kill()
        if not program.running():
            program = Program(tmp_path, "run", "-c", "c.toml", segment_bytes=20_000)
        metrics = program.address("metrics")
        until(lambda: len(lines(tmp_path / "alerts.ndjson")) >= len(expected), "the last alert")
        until(lambda: self.applied(metrics) >= engine.counts.applied, "the last call")
        assert self.count(metrics, "read_packets_total") == len(packets)
        assert self.count(metrics, "dropped_packets_total") == 0
        assert self.count(metrics, "stray_packets_total") == 0
        assert self.applied(metrics) == engine.counts.applied
        until(lambda: len(list((tmp_path / "state/spool").iterdir())) <= 2, "the end of the passed segments")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        assert lines(tmp_path / "alerts.ndjson") == expected
        assert lines(tmp_path / "state/dead-letters.ndjson") == []

    @staticmethod
    def send(program, packets, *, by_tcp):
        host, _, port = program.address("hep").removeprefix("http://").rpartition(":")
        if by_tcp:
            with socket.create_connection((host, int(port))) as tcp:
                tcp.sendall(b"".join(packets))
            return
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            for packet in packets:
                udp.sendto(packet, (host, int(port)))

    @staticmethod
    def count(metrics, name):
        return figures(metrics).get(f"stayline_hep_{name}", 0.0)

    @staticmethod
    def applied(metrics):
        return figures(metrics)['stayline_records_total{outcome="applied"}']


class TestSettings:
    def test_the_kind_brings_its_format(self, tmp_path):
        path = tmp_path / "c.toml"
        path.write_text('[input]\nkind = "hep"\n')
        assert load(path, {}).input.format == "hep"
        path.write_text('[input]\nkind = "hep"\nformat = "csv"\n')
        with pytest.raises(ConfigError, match="must be hep where"):
            load(path, {})
        path.write_text('[input.hep]\ncustomer_networks = ["10.0.0.0/99"]\n')
        with pytest.raises(ConfigError, match=r"customer_networks: must hold address ranges"):
            load(path, {})
