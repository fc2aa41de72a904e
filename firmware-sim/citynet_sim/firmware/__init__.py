"""Firmware of simulated devices: one state machine for all of them, and what each says on its own protocol."""
