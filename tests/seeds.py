"""Seeds of random tests: the same in every run unless asked otherwise, because a commit must not fail for what an earlier one
broke. ``CITYNET_TEST_SEED`` is a number, to repeat a run, or ``random``, to look for news; the nightly tests always do."""

from __future__ import annotations

import os
import random
import zlib


def seed_of(name: str, *, is_nightly: bool = False) -> int:
    """The seed of the test called `name`. It is printed, so that it is there with a failure."""
    given = os.environ.get("CITYNET_TEST_SEED") or ("random" if is_nightly else "")
    number = random.SystemRandom().randrange(1 << 32) if given == "random" else int(given or zlib.crc32(name.encode()))
    print(f"CITYNET_TEST_SEED={number}")
    return number
