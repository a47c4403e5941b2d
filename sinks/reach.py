"""Why Kafka's brokers cannot be reached, in words: the client says of many causes only that nobody answered.

One connection is made as the client would make it, and what stands in its way is named: a name that nobody knows, a
port where nobody listens, a certificate that has expired or is another host's, encryption on one side alone.
"""

import socket
import ssl
from collections.abc import Mapping

CONNECT_S = 3.0
"""So long a connection may take here: whoever asks has waited already."""


def obstacle(properties: Mapping[str, object]) -> str:
    """Return what stands in the way to the first broker that has something in its way; empty: nothing was found.

    Args:
        properties: of the client, as librdkafka names them.
    """
    encrypted = "SSL" in str(properties["security.protocol"]).split("_")
    try:
        context = _context(properties) if encrypted else _unchecked()
    except OSError as error:
        return f"ca_file and client_cert_file must be readable, were not: {_reason(error)}"
    for address in str(properties["bootstrap.servers"]).split(","):
        host, _, port = address.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), CONNECT_S) as plain:
                found = _spoken(plain, context, host.strip("[]"), encrypted=encrypted)
        except socket.gaierror:
            found = "the name cannot be resolved"
        except TimeoutError:
            found = f"no connection within {CONNECT_S:.0f} s"
        except OSError as error:
            found = str(error.strerror or error)
        if found:
            return f"{address}: {found}"
    return ""


def _spoken(plain: socket.socket, context: ssl.SSLContext, host: str, *, encrypted: bool) -> str:
    """Return what is wrong once a connection stands."""
    try:
        with context.wrap_socket(plain, server_hostname=host) as wrapped:
            if not encrypted:
                return "the port speaks TLS, and tls is false"
            # By TLS 1.3 what the server thinks of our certificate comes behind the handshake.
            wrapped.settimeout(1.0)
            wrapped.recv(1)
    except ssl.SSLCertVerificationError as error:
        return f"the certificate must be valid for this host, was not: {error.verify_message}"
    except TimeoutError:
        return ""
    except (ssl.SSLError, OSError) as error:
        if not encrypted:
            return ""
        if "CERTIFICATE" in str(error):
            return f"the broker refuses our certificate, or wants one: {_reason(error)}"
        return f"the port does not speak TLS, and tls is true: {_reason(error)}"
    return ""


def _reason(error: OSError) -> str:
    text = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return str(text or error).lower().replace("_", " ")


def _context(properties: Mapping[str, object]) -> ssl.SSLContext:
    authority, shown = (properties.get(key) for key in ("ssl.ca.location", "ssl.certificate.location"))
    context = ssl.create_default_context(cafile=None if authority is None else str(authority))
    if shown is not None:
        context.load_cert_chain(str(shown))
    return context


def _unchecked() -> ssl.SSLContext:
    """Return a context that finds out only whether TLS is spoken; nothing is sent by it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
