"""The tests: unit, property, replay, integration, faults, e2e."""
