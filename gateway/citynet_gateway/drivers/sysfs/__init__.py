"""Sensors of the machine itself, as the Linux kernel shows them in files: IIO and 1-wire."""
