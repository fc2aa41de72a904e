"""Columns as the body of a binary COPY, whole and in pieces."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from citynet.batch import SeriesBatch
from citynet_ingest import copybody
from citynet_ingest.copybody import HEADER, POSTGRES_EPOCH_US, TRAILER, copy_body, copy_pieces


def rows(count: int) -> SeriesBatch:
    place = np.arange(count)
    return SeriesBatch(
        place.astype(np.int32), POSTGRES_EPOCH_US + place * 7, place * 0.5, (place % 256).astype(np.uint8)
    )


def test_a_body_is_what_postgresql_reads() -> None:
    fields = struct.pack(">hiqiiidih", 4, 8, 7, 4, 1, 8, 0.5, 2, 1)
    assert copy_body(rows(2)) == HEADER + struct.pack(">hiqiiidih", 4, 8, 0, 4, 0, 8, 0.0, 2, 0) + fields + TRAILER


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 15, 16, 17, 40])
def test_pieces_are_the_body_cut_in_bounded_parts(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copybody, "PIECE_ROWS", 8)
    pieces = list(copy_pieces(rows(count)))
    assert b"".join(pieces) == copy_body(rows(count))
    assert max(len(piece) for piece in pieces) <= len(copy_body(rows(8)))
    assert len(pieces) > 1 or count == 1, "a kill in between must find a part of the rows with the server"
