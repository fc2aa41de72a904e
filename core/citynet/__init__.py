"""The vocabulary of citynet: what the words mean and how they look on the wire.

Pure modules (no sockets, no database, no logging): `errors`, `ids`, `topics`, `quality`, `reading`, `notes`,
`wire`, `control`, `formats`; `batch` adds numpy. How a process lives (settings, logs, metrics, embedded servers)
is in `citynet.runtime`.
"""

__version__ = "0.1.0"
