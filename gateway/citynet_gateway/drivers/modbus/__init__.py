"""Modbus TCP and RTU: register maps, batched polls, a bus that is shared with outputs. pymodbus is imported in `link` only."""
