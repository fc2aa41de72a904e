"""The spool: what the gateway accepted and the server has not yet acknowledged, safe on this machine's storage."""

from __future__ import annotations

from citynet_gateway.spool.port import Frame, Run, Span, Spool, SpoolFull, SpoolLocked, SpoolSettings
from citynet_gateway.spool.store import SegmentSpool

__all__ = ["Frame", "Run", "SegmentSpool", "Span", "Spool", "SpoolFull", "SpoolLocked", "SpoolSettings"]
