"""The decisions of the api that need neither database nor network."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citynet.tokens import bearer, digest, mint
from citynet_api import cursors
from citynet_api.app import end
from citynet_api.auth import CACHE_ENTRIES_MAX, Authenticator, Principal, Role
from citynet_api.buckets import LADDER, choose, width_s
from citynet_api.errors import dotted
from citynet_api.feed import Event, Subscription
from citynet_api.problems import KINDS, Problem
from citynet_api.registry import repeats
from citynet_api.routes.devices import contains
from citynet_api.sources import ORIGIN
from citynet_api.tally import WINDOW_S, Tally

TOKEN = mint(bytes(range(32)))


@given(st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(max_size=40)), max_size=5), st.text(max_size=20))
def test_a_cursor_gives_back_its_key(key: list[str | int], value: str) -> None:
    cursor = cursors.encode("alerts", {"q": value}, key)
    assert cursors.decode(cursor, "alerts", {"q": value}, tuple(type(part) for part in key)) == key
    assert cursor.isascii()


@given(st.text(max_size=200))
def test_any_text_as_cursor_is_refused_by_name(text: str) -> None:
    with pytest.raises(Problem) as refused:
        cursors.decode(text, "alerts", {}, (str, int))
    assert [fault.parameter for fault in refused.value.errors] == ["cursor"]


def test_a_cursor_of_another_list_other_filters_or_other_types_is_refused() -> None:
    cursor = cursors.encode("alerts", {"level": 3}, ["a", 1])
    for listing, filters, kinds in (
        ("devices", {"level": 3}, (str, int)),
        ("alerts", {"level": 4}, (str, int)),
        ("alerts", {"level": 3}, (int, str)),
        ("alerts", {"level": 3}, (str,)),
    ):
        with pytest.raises(Problem):
            cursors.decode(cursor, listing, filters, kinds)


def test_tokens_have_one_form() -> None:
    assert TOKEN == "cn_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    with pytest.raises(ValueError, match="32 random bytes"):
        mint(b"short")
    assert bearer(f"Bearer {TOKEN}") == TOKEN
    assert bearer(f"bearer  {TOKEN} ") == TOKEN
    for header in (
        None,
        "",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN} {TOKEN}",
        f"Bearer {TOKEN[:-1]}\n",
    ):
        assert bearer(header) is None


class Door:
    """An authenticator with a clock and a register that the test turns."""

    def __init__(self, cache_s: float) -> None:
        self.now = 0.0
        self.known = {digest(TOKEN): Principal("ada", Role.admin)}
        self.asked = 0
        self.verifier = Authenticator(self.lookup, cache_s, lambda: self.now)

    async def lookup(self, key: bytes) -> Principal | None:
        self.asked += 1
        return self.known.get(key)

    def open(self, token: str = TOKEN) -> str | None:
        try:
            return asyncio.run(self.verifier.verify(f"Bearer {token}")).name
        except Problem as problem:
            assert problem.kind == "unauthenticated"
            return None


def test_a_good_token_is_remembered_for_a_while_and_a_bad_one_never() -> None:
    door = Door(cache_s=3)
    assert door.open() == "ada"
    door.known.clear()
    door.now = 2.9
    assert door.open() == "ada"
    assert door.asked == 1
    door.now = 3.0
    assert door.open() is None
    door.known[digest(TOKEN)] = Principal("eve", Role.viewer)
    assert door.open() == "eve"


def test_the_memory_of_tokens_is_bounded() -> None:
    door = Door(cache_s=5)
    for k in range(CACHE_ENTRIES_MAX + 1):
        token = mint(k.to_bytes(32, "big"))
        door.known[digest(token)] = Principal(str(k), Role.viewer)
        assert door.open(token) == str(k)
    before = door.asked
    door.open(mint((1).to_bytes(32, "big")))
    assert door.asked == before
    door.open(mint((0).to_bytes(32, "big")))
    assert door.asked == before + 1


@given(st.integers(0, 10**9), st.integers(1, 400 * 86_400), st.integers(50, 5000), st.integers(50, 5000))
def test_auto_takes_the_finest_width_that_fits(offset: int, seconds: int, points: int, points_max: int) -> None:
    start = ORIGIN + timedelta(seconds=offset)
    end = start + timedelta(seconds=seconds)

    def buckets(width: str) -> int:
        """How many buckets of a width the range touches."""
        return (offset + seconds - 1) // width_s(width) - offset // width_s(width) + 1

    for least_s in (1, 60, 3600):
        allowed = [width for width in LADDER if width_s(width) >= least_s]
        fitting = [width for width in allowed if buckets(width) <= min(points, points_max)]
        if not fitting:
            with pytest.raises(Problem):
                choose("auto", start, end, points, points_max, least_s)
        else:
            assert choose("auto", start, end, points, points_max, least_s) == fitting[0]


def test_widths() -> None:
    assert [width_s(text) for text in ("10s", "1m", "3h", "7d")] == [10, 60, 10_800, 604_800]
    assert [width_s(text) for text in LADDER] == sorted(width_s(text) for text in LADDER)
    for wrong in ("", "0s", "s", "10", "1.5m", "10 s", "99999s", "-1m", "1w"):
        with pytest.raises(Problem):
            width_s(wrong)
    hour = (ORIGIN, ORIGIN + timedelta(hours=1))
    assert choose("7m", *hour, 300, 10) == "7m"
    with pytest.raises(Problem, match="take 10m or coarser"):
        choose("1m", *hour, 300, 10)


def test_the_tally_is_the_last_minute_only() -> None:
    clock = SimpleNamespace(now=0.0)
    tally = Tally(lambda: clock.now)
    assert tally.last_minute() is None
    tally.note(1000)
    assert tally.last_minute() is None
    for k in range(1, 61):
        clock.now = 5.0 * k
        tally.note(1000 + 50 * k)
        counted = tally.last_minute()
        assert counted is not None
        assert counted == (min(50 * k, 50 * 12), pytest.approx(10.0))
    clock.now += WINDOW_S
    tally.note(4000)
    assert tally.last_minute() == (0, 0.0)
    tally.note(5)  # another database
    assert tally.last_minute() is None


def test_a_full_subscription_ends_and_says_so_once() -> None:
    subscription = Subscription(queue_max=3)
    assert [subscription.offer(Event(k, "")) for k in range(5)] == [True, True, True, False, False]
    assert subscription.ended == "slow"
    assert subscription.queue.get_nowait() is None
    assert subscription.queue.empty()
    subscription.end("stopping")
    assert subscription.ended == "slow"


@given(st.lists(st.sampled_from("abcd")))
def test_repeats_are_those_that_occur_more_than_once(names: list[str]) -> None:
    found = repeats(names)
    assert set(found) == {name for name in names if names.count(name) > 1}
    assert len(found) == len(set(found))


def test_paths_are_written_as_people_write_them() -> None:
    assert dotted(["series", 0, "metric"]) == "series[0].metric"
    assert dotted([3, "device"]) == "[3].device"
    assert dotted([]) == ""


def test_a_part_of_a_name_is_taken_literally() -> None:
    assert contains("50%_a\\b") == "%50\\%\\_a\\\\b%"
    assert contains(None) is None


def test_a_problem_says_type_title_status_and_no_more_than_it_has() -> None:
    assert Problem("not-found", "gone").body("/x") == {
        "type": "urn:citynet:problem:not-found",
        "title": "There is no such thing",
        "status": 404,
        "detail": "gone",
        "instance": "/x",
    }
    assert all(400 <= status < 600 and title for status, title in KINDS.values())


def test_a_task_that_lost_a_cancellation_is_ended_all_the_same() -> None:
    async def scenario() -> None:
        lost = 0

        async def watch() -> None:
            nonlocal lost
            while True:
                try:
                    await asyncio.sleep(3_600)
                except asyncio.CancelledError:
                    lost += 1
                    if lost > 2:
                        raise

        async def fails() -> None:
            raise OSError("away")

        tasks = [asyncio.create_task(watch()), asyncio.create_task(fails())]
        await asyncio.sleep(0)
        await end(tasks)
        assert (lost, tasks[0].cancelled(), str(tasks[1].exception())) == (3, True, "away")

    asyncio.run(asyncio.wait_for(scenario(), 60))
