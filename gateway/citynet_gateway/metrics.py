"""Metrics of a gateway. Records are readings and notes."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from citynet.runtime.metrics import REGISTRY

ACCEPTED = Counter("citynet_gateway_accepted_records_total", "Records accepted (synced)", ["stream"], registry=REGISTRY)
ACKED = Counter(
    "citynet_gateway_acked_records_total", "Records acknowledged by the server", ["stream"], registry=REGISTRY
)
REJECTED = Counter("citynet_gateway_rejected_total", "Values and messages that went to dead letter", registry=REGISTRY)
DUPLICATES = Counter(
    "citynet_gateway_field_duplicates_total", "Redelivered field messages recognised", registry=REGISTRY
)
PARKED = Gauge(
    "citynet_gateway_parked_messages", "Field messages not answered because the spool refuses", registry=REGISTRY
)
SPOOL_BYTES = Gauge("citynet_gateway_spool_bytes", "Bytes of the spool", registry=REGISTRY)
SPOOL_RECORDS = Gauge("citynet_gateway_spool_records", "Records not yet acknowledged", ["stream"], registry=REGISTRY)
SYNC_S = Histogram("citynet_gateway_sync_seconds", "Duration of a write and sync", ["stream"], registry=REGISTRY)
SYNC_FAILURES = Counter(
    "citynet_gateway_sync_failures_total", "Writes or syncs that the storage refused", registry=REGISTRY
)
BATCHES = Counter("citynet_gateway_batches_total", "Batches published", ["stream"], registry=REGISTRY)
HELLOS = Counter(
    "citynet_gateway_hellos_total", "Hellos published; beyond one a connection: asked again", registry=REGISTRY
)
ACKS = Counter("citynet_gateway_acks_total", "Acknowledgements by what they came to", ["outcome"], registry=REGISTRY)
ACKS_DROPPED = Counter(
    "citynet_gateway_acks_dropped_total", "Acknowledgements beyond the queue's bound", registry=REGISTRY
)
LOST = Gauge(
    "citynet_gateway_damaged_records", "Records found damaged on this storage since the start", registry=REGISTRY
)
CONNECT_FAILURES = Counter(
    "citynet_gateway_uplink_connect_failures_total", "Attempts to connect that failed", ["reason"], registry=REGISTRY
)
GIVEN_UP = Gauge(
    "citynet_gateway_given_up_records",
    "Unacknowledged records given up since the start, each declared as lost",
    ["reason"],
    registry=REGISTRY,
)
REFUSED = Counter(
    "citynet_gateway_refused_messages_total",
    "Messages of sources that cannot wait for which even giving way made no room",
    registry=REGISTRY,
)
CUTS = Counter(
    "citynet_gateway_uplink_cuts_total",
    "Established uplink connections that were ended from outside",
    registry=REGISTRY,
)
CONNECTED = Gauge("citynet_gateway_connected", "1 while connected", ["side"], registry=REGISTRY)

NOTES_SUPPRESSED = Counter(
    "citynet_gateway_notes_suppressed_total",
    "Raw notes beyond what one source address may leave",
    ["driver"],
    registry=REGISTRY,
)
HJ212_FRAMES = Counter(
    "citynet_gateway_hj212_frames_total", "HJ 212 frames, and what was none, by outcome", ["outcome"], registry=REGISTRY
)
HJ212_CHECKSUMS = Counter(
    "citynet_gateway_hj212_wrong_checksums_total",
    "Frames of a station with a wrong checksum",
    ["device"],
    registry=REGISTRY,
)
HJ212_CONNECTIONS = Gauge("citynet_gateway_hj212_connections", "HJ 212 connections", registry=REGISTRY)
HJ212_REFUSED = Counter(
    "citynet_gateway_hj212_refused_connections_total", "Connections ended at the bound", registry=REGISTRY
)
HJ212_TIMEOUTS = Counter(
    "citynet_gateway_hj212_timeouts_total", "Connections that were silent or slow for too long", registry=REGISTRY
)
HJ212_REQUESTS = Counter(
    "citynet_gateway_hj212_requests_total", "Requests to stations by what came of them", ["outcome"], registry=REGISTRY
)
PUSH_REQUESTS = Counter(
    "citynet_gateway_push_requests_total",
    "HTTP requests by status, and connections that gave way",
    ["status"],
    registry=REGISTRY,
)
CLOCK_KNOWN = Gauge("citynet_gateway_clock_known", "1 once the clock is known in this boot", registry=REGISTRY)
CLOCK_STEPS = Counter("citynet_gateway_clock_steps_total", "Steps of the machine's clock", registry=REGISTRY)
SENSED = Counter(
    "citynet_gateway_sensed_total", "Readings by what the edge sense did to them", ["outcome"], registry=REGISTRY
)
EVENTS = Counter("citynet_gateway_events_total", "Events of the gateway itself that are safe", registry=REGISTRY)
EVENTS_DROPPED = Counter(
    "citynet_gateway_events_dropped_total", "Events not recorded because too many were waiting", registry=REGISTRY
)
INTERLOCK_INPUTS = Counter(
    "citynet_gateway_interlock_inputs_total",
    "Readings of interlocks by what became of them",
    ["outcome"],
    registry=REGISTRY,
)
INTERLOCK_CHANGES = Counter(
    "citynet_gateway_interlock_changes_total", "Trips and releases", ["interlock", "cause"], registry=REGISTRY
)
INTERLOCK_TRIPPED = Gauge("citynet_gateway_interlock_tripped", "1 while tripped", ["interlock"], registry=REGISTRY)
OUTPUT_ACTIONS = Counter(
    "citynet_gateway_output_actions_total",
    "Writes to outputs by how they ended",
    ["output", "outcome"],
    registry=REGISTRY,
)
OUTPUT_S = Histogram(
    "citynet_gateway_output_seconds",
    "From the cause of a switching to the device having taken it",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 30),
    registry=REGISTRY,
)
COMMANDS = Counter(
    "citynet_gateway_commands_total", "Commands by kind and outcome", ["kind", "state"], registry=REGISTRY
)
MODBUS_REQUESTS = Counter(
    "citynet_gateway_modbus_requests_total",
    "Modbus requests by what they came to: answered, silence, garbage, refused, lost, cut",
    ["bus", "outcome"],
    registry=REGISTRY,
)
SILENT_DEVICES = Gauge(
    "citynet_gateway_silent_devices", "Polled devices that do not answer", ["driver"], registry=REGISTRY
)
POLLS_SKIPPED = Counter(
    "citynet_gateway_polls_skipped_total",
    "Polls left out: behind (the bus is too slow), paused (readings wait for their sync), lost (no connection), silent",
    ["driver", "reason"],
    registry=REGISTRY,
)
BAD_VALUES = Counter("citynet_gateway_bad_values_total", "Polled values of quality bad", ["driver"], registry=REGISTRY)
