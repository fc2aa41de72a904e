"""Outputs: what a gateway can switch (a relay, a valve, a siren), one module a way of doing it."""
