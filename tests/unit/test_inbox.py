"""What a commit takes out of the inbox, while nothing is being written and while something is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from citynet_ingest.inbox import Inbox
from citynet_ingest.parcel import Origin, PassedParcel

if TYPE_CHECKING:
    from citynet_ingest.inbox import Weighed


def parcels(count: int, readings: int = 1, weight: int = 10, lane: int = 0) -> list[Weighed]:
    return [(PassedParcel(Origin("t", k, 1, False, 0, "", b"", lane)), readings, weight) for k in range(count)]


def test_an_idle_writer_gets_whatever_there_is_up_to_one_commit() -> None:
    inbox = Inbox(readings_max=100, messages_max=8, bytes_max=1_000)
    inbox.put(parcels(1))
    assert len(inbox.take(0).parcels) == 1
    inbox.put(parcels(20))
    assert [len(inbox.take(0).parcels) for _ in range(4)] == [8, 8, 4, 0]
    inbox.put(parcels(5, readings=40))
    assert [inbox.take(0).readings for _ in range(3)] == [120, 80, 0]
    inbox.put(parcels(3, weight=600))
    assert [inbox.take(0).weights for _ in range(3)] == [{(0, 1): 1_200}, {(0, 1): 600}, {}]


def test_while_a_commit_is_written_only_a_full_one_is_taken() -> None:
    for more in (parcels(8), parcels(3, readings=40), parcels(2, weight=600)):
        inbox = Inbox(readings_max=100, messages_max=8, bytes_max=1_000)
        inbox.hold(True)
        inbox.put(more[:1])
        assert not inbox.take(0).parcels
        inbox.put(more[1:])
        assert len(inbox.take(0).parcels) == len(more)
        inbox.put(parcels(1))
        assert not inbox.take(0).parcels, "what was taken counts no more"
        inbox.hold(False)
        assert len(inbox.take(0).parcels) == 1


def test_what_is_dropped_counts_no_more() -> None:
    inbox = Inbox(readings_max=100, messages_max=8, bytes_max=1_000)
    inbox.hold(True)
    inbox.put([*parcels(7, lane=1), *parcels(1, lane=2)])
    inbox.clear(1)
    assert not inbox.take(0).parcels
    inbox.hold(False)
    assert inbox.take(0).weights == {(2, 1): 10}
