"""The SQLite spool against the same model as the segment files: full disks, I/O errors, kills."""

from __future__ import annotations

from tests.sqlite_world import SqliteWorld

LIVES, STEPS = 150, 30


def test_random_lives_with_full_disks_io_errors_and_kills(seed: int) -> None:
    deaths = faults = 0
    for number in range(seed, seed + LIVES):
        world = SqliteWorld(number)
        try:
            world.live(STEPS)
        except AssertionError as error:
            raise AssertionError(f"seed {number}, {STEPS} steps: {error}") from error
        finally:
            world.close()
        deaths, faults = deaths + world.deaths, faults + world.faults
    assert deaths > LIVES / 10
    assert faults > LIVES / 10
