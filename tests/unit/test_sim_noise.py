"""Randomness by address, and the noise made of it."""

from __future__ import annotations

import numpy as np

from citynet_sim.noise import ar1, ar1_bridge, normals, uniforms

GOLDEN_UNIFORMS = [6840043695102857, 151059980936575, 6831356641142661]
GOLDEN_NORMALS = [0.852150179977, -1.511289388134, 0.069772554512]


def test_numbers_of_a_seed_are_fixed_for_ever() -> None:
    """Golden values: a change here changes every city that anybody has written down by its seed."""
    assert (uniforms(1, "golden", 7, 3) * 2**53).astype(np.int64).tolist() == GOLDEN_UNIFORMS
    assert np.round(normals(1, "golden", 7, 3), 12).tolist() == GOLDEN_NORMALS


def test_address_decides() -> None:
    same = uniforms(5, "a", 0, 16)
    assert np.array_equal(same, uniforms(5, "a", 0, 16))
    for other in (uniforms(6, "a", 0, 16), uniforms(5, "b", 0, 16), uniforms(5, "a", 1, 16)):
        assert not np.any(same == other)


def test_normals_are_standard_and_bounded() -> None:
    x = normals(11, "moments", 0, 200_000)
    assert abs(x.mean()) < 0.01
    assert abs(x.std() - 1.0) < 0.01
    assert np.abs(x).max() <= 3.47


def test_scan_is_the_recursion() -> None:
    """The doubling scan against the recursion written out."""
    white = normals(2, "white", 0, 3 * 97).reshape(3, 97)
    phi, first = np.array([0.0, 0.6, 0.999]), np.array([0.3, -1.0, 2.0])
    expected = np.empty_like(white)
    state = first.copy()
    for k in range(97):
        state = phi * state + np.sqrt(1 - phi * phi) * white[:, k]
        expected[:, k] = state
    assert np.allclose(ar1(white, phi, first), expected, rtol=0, atol=1e-12)


def test_bridge_ends_where_it_must_and_keeps_its_variance() -> None:
    blocks, steps, phi = 4000, 64, 0.9
    white = normals(3, "bridge", 0, blocks * steps).reshape(blocks, steps)
    first, last = normals(3, "first", 0, blocks), normals(3, "last", 0, blocks)
    x = ar1_bridge(white, np.full(blocks, phi), first, last)
    assert np.allclose(x[:, -1], last, rtol=0, atol=1e-12)
    assert np.all(np.abs(x.std(axis=0) - 1.0) < 0.06)
    lagged = (x[:, 1:] * x[:, :-1]).mean()
    assert abs(lagged - phi) < 0.01
