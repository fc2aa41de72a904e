"""Prometheus metrics of a process, on a loopback port unless configured otherwise."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, start_http_server

from citynet.errors import ConfigError

REGISTRY = CollectorRegistry()


def serve(port: int, host: str = "127.0.0.1") -> None:
    """Serve `REGISTRY` on ``http://host:port/metrics``; port 0 serves nothing. ConfigError if the port is taken."""
    if port == 0:
        return
    try:
        start_http_server(port, addr=host, registry=REGISTRY)
    except OSError as error:
        raise ConfigError([f"metrics_port {port} on {host}: {error.strerror}"]) from None
