"""What stands in the way to brokers is said in words that help."""

import contextlib
import socket
import ssl
import subprocess
import threading

import pytest
from needs_kit import make_certificates, needs

from bench.broker import free_port
from dataflows.commands.ping import ping
from dataflows.config.outputs import KafkaOutput as OutputTable
from dataflows.inputs.kafka_client import connection
from sinks import kafka, reach
from sinks.kafka import KafkaOutput
from sinks.reach import obstacle


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """Make certificates, among them one that has expired; in their folder."""
    folder = tmp_path_factory.mktemp("reach") / "tls"
    folder.mkdir()
    make_certificates(folder, "localhost")

    def openssl(*arguments):
        subprocess.run([needs("openssl"), *arguments], cwd=folder, check=True, capture_output=True)

    openssl("req", "-new", "-key", "server.key", "-subj", "/CN=localhost", "-out", "old.csr")
    (folder / "names").write_text("subjectAltName=DNS:localhost")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "-1")
    openssl("x509", "-req", "-in", "old.csr", "-out", "old.crt", *signed)
    (folder / "old.pem").write_text((folder / "server.key").read_text() + (folder / "old.crt").read_text())
    return folder


@contextlib.contextmanager
def listening(context=None):
    """Give the port of a server that speaks TLS and no more; without a context it hangs up at the first byte."""

    def serve(one):
        with contextlib.suppress(OSError), one:
            if context is None:
                one.recv(1)
                return
            with context.wrap_socket(one, server_side=True) as wrapped:
                wrapped.recv(1)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=[server.accept()[0]], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def speaking(tls, certificate="server.pem", *, asks=False):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / certificate)
    if asks:
        context.load_verify_locations(tls / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return listening(context)


def found(brokers, **given):
    table = OutputTable(kind="kafka", brokers=brokers, topic="t", **given)
    return obstacle(connection(table, None))


def test_of_a_certificate_it_is_said_why_it_is_not_accepted(tls):
    trusted = {"tls": True, "ca_file": str(tls / "ca.pem")}
    with speaking(tls) as port:
        assert found(f"localhost:{port}", **trusted) == ""
        assert found(f"127.0.0.1:{port}", **trusted).endswith("certificate is not valid for '127.0.0.1'.")
        assert found(f"localhost:{port}", tls=True).endswith("unable to get local issuer certificate")
    with speaking(tls, "old.pem") as port:
        assert found(f"localhost:{port}", **trusted).endswith("was not: certificate has expired")
    with speaking(tls, asks=True) as port:
        assert "the broker refuses our certificate, or wants one" in found(f"localhost:{port}", **trusted)
        assert found(f"localhost:{port}", **trusted, client_cert_file=str(tls / "client.pem")) == ""


def test_encryption_on_one_side_alone_is_named(tls):
    with speaking(tls) as port:
        assert found(f"localhost:{port}") == f"localhost:{port}: the port speaks TLS, and tls is false"
    with listening() as port:
        assert found(f"localhost:{port}") == ""
        assert "the port does not speak TLS, and tls is true" in found(f"localhost:{port}", tls=True)


def test_of_several_brokers_the_one_that_is_out_of_reach_is_named(monkeypatch):
    gone = f"127.0.0.1:{free_port()}"
    with listening() as port:
        assert found(f"localhost:{port},{gone}") == f"{gone}: Connection refused"
    monkeypatch.setattr(socket, "create_connection", lambda *_: (_ for _ in ()).throw(socket.gaierror()))
    assert found("nowhere:9092") == "nowhere:9092: the name cannot be resolved"


def test_a_file_that_went_away_is_said_so(tmp_path):
    given = {"security.protocol": "SSL", "bootstrap.servers": "b:9", "ssl.ca.location": str(tmp_path / "ca.pem")}
    assert obstacle(given).endswith("must be readable, were not: no such file or directory")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("misnamed", "the receiver's certificate does not prove its name: look at ca_file and the url"),
        ("encrypted", "encryption is on one side alone: look at tls, and at the port"),
        ("asks", "the brokers want a certificate that they know: look at client_cert_file"),
        ("gone", "nobody listens there: is the receiver running, is the port right?"),
    ],
)
def test_a_ping_says_at_once_what_to_look_at(tls, monkeypatch, how, words):
    monkeypatch.setattr(kafka, "CONFIRMED_S", 1.0)
    monkeypatch.setattr(reach, "CONNECT_S", 1.0)
    given = {} if how == "encrypted" else {"tls": True, "ca_file": str(tls / "ca.pem")}
    with contextlib.ExitStack() as stack:
        port = free_port() if how == "gone" else stack.enter_context(speaking(tls, asks=how == "asks"))
        address = f"127.0.0.1:{port}" if how == "misnamed" else f"localhost:{port}"
        table = OutputTable(kind="kafka", brokers=address, topic="t", **given)
        told = ping(KafkaOutput("out", "t", connection(table, None)), "west", lambda: 0)
    assert (told.taken, told.words) == (False, words)
