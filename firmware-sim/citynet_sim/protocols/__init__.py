"""Simulated field devices that speak a protocol of their own; each an independent oracle for the gateway's driver."""
