"""Detectors that need no rule: severity 0..1 of one series (`ensemble`), alarms of a table of sensors (`table`)."""
