"""What both MQTT sides of the gateway share: a paho client for an endpoint, and leaving within a bound."""

from __future__ import annotations

import ssl
import threading
from datetime import datetime
from random import Random

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from citynet.errors import ConfigError
from citynet.runtime.settings import BrokerEndpoint, TlsSettings
from citynet_gateway import certificate
from citynet_gateway.settings import Endpoint

KEEPALIVE_S = 15  # a half-open connection is noticed within 1.5 of these
CONNECT_TIMEOUT_S = 5.0
RECONNECT_S_MAX = 15
LEAVE_S_MAX = 1.0
_X509_V_ERR_CERT_HAS_EXPIRED = 10  # of OpenSSL, x509_vfy.h


def new_client(endpoint: BrokerEndpoint, client_id: str, random: Random, *, manual_ack: bool) -> paho.Client:
    """A client that is not yet connected; reconnects by itself after 1 s to about `RECONNECT_S_MAX`.

    Raises:
        ConfigError: a password or certificate file that cannot be used.
    """
    websocket_path = endpoint.websocket_path if isinstance(endpoint, Endpoint) else None
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=paho.MQTTv5,
        manual_ack=manual_ack,
        transport="tcp" if websocket_path is None else "websockets",
    )
    if websocket_path is not None:
        client.ws_set_options(path=websocket_path)
    client.connect_timeout = CONNECT_TIMEOUT_S
    reconnects_after(client, 1, random)
    if endpoint.username is not None:
        client.username_pw_set(endpoint.username, endpoint.password())
    if endpoint.tls is not None:
        client.tls_set_context(tls_context(endpoint.host, endpoint.tls))
    return client


def reconnects_after(client: paho.Client, delay_s: int, random: Random) -> None:
    """Once a connection has ended, come back after `delay_s`; then ever more rarely."""
    # After a broker restart a thousand gateways must not come back in step.
    client.reconnect_delay_set(delay_s, random.randint(RECONNECT_S_MAX // 2, RECONNECT_S_MAX))


def tls_context(host: str, tls: TlsSettings) -> ssl.SSLContext:
    """What to speak TLS to a broker with. ConfigError if one of its files cannot be used."""
    try:
        context = ssl.create_default_context(cafile=str(tls.ca_file) if tls.ca_file else None)
        if tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except OSError as error:  # ssl.SSLError included
        files = ", ".join(str(item) for item in (tls.ca_file, tls.cert_file, tls.key_file) if item)
        raise ConfigError([f"broker {host} tls {files}: {error}"]) from None
    return context


def why_not_connected(endpoint: Endpoint, error: BaseException | None, now: datetime) -> tuple[str, str]:
    """(reason for the counter, sentence) of a connection that did not come about or was ended in its beginning."""
    tls = endpoint.tls
    ours = certificate.trouble(tls.cert_file, now) if tls is not None else ""
    if "expired" in ours:
        return "certificate-expired", ours
    place = f"{endpoint.host}:{endpoint.port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code == _X509_V_ERR_CERT_HAS_EXPIRED:
            return "certificate-expired", f"the certificate of {place} has expired"
        return "tls", f"the certificate of {place} is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "tls", f"no TLS connection to {place}: {error.reason or error}"
    if isinstance(error, OSError | ValueError) and str(error):
        return "network", f"no broker at {place}: {getattr(error, 'strerror', None) or error}"
    return "network", f"no broker at {place}"


def leave(client: paho.Client) -> None:
    """Disconnect after what is queued, and end the network thread; gives up waiting after `LEAVE_S_MAX`."""
    client.disconnect()
    # paho joins its thread without a bound, and a deaf broker would hold us for ever.
    joiner = threading.Thread(target=client.loop_stop, name="mqtt-leave", daemon=True)
    joiner.start()
    joiner.join(LEAVE_S_MAX)
