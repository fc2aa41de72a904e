"""Rules: given readings in event order, which alerts change state. Pure: no IO, no clock, no randomness."""
