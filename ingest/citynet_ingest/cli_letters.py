"""``citynet dead-letters``: look at what could not be stored, and have it tried again.

A command of its own: `db` is about the schema and `ingest` about running a worker, while this is an operator's daily work. It
writes no reading. It leaves a request in the database, and the worker that owns the letter's shard carries it out.
"""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import psycopg
import typer
from psycopg.rows import dict_row

from citynet import formats
from citynet.errors import CitynetError
from citynet.runtime.command import ConfigOption, JsonOption, command
from citynet.runtime.settings import DatabaseSettings, load
from citynet_ingest.cli_db import connect
from citynet_ingest.ledger_options import (
    FIRST_PAGE,
    AfterOption,
    GatewayOption,
    LimitOption,
    ReasonOption,
    SinceOption,
    page_json,
    plain,
    since,
)
from citynet_ingest.letter import shard_of_topic
from citynet_ingest.settings import IngestSettings
from citynet_ingest.sources import Sources
from citynet_ingest.store import sql

REDRIVE_MAX = 10_000
_POLL_S = 0.2
_TEXT_BYTES_MAX = 4_096  # of a payload on a terminal
Connection = psycopg.Connection[tuple[object, ...]]
TopicOption = Annotated[str | None, typer.Option("--topic", help="Of this topic only.")]

app = typer.Typer(no_args_is_help=True, help="Look at what could not be stored; have it tried again.")


@app.command("list")
@command
def list_letters(
    config: ConfigOption = None,
    gateway: GatewayOption = None,
    topic: TopicOption = None,
    reason: ReasonOption = None,
    since_text: SinceOption = None,
    redriven: Annotated[
        bool, typer.Option("--redriven", help="Those that a redrive has stored, not the open ones.")
    ] = False,
    limit: LimitOption = 50,
    after: AfterOption = FIRST_PAGE,
    as_json: JsonOption = False,
) -> None:
    """Dead letters, newest first."""
    asked = {"gateway": gateway, "topic": topic, "reason": reason, "since": since(since_text)}
    page = asked | {"before": after, "limit": limit, "redriven": redriven}
    with connect(load(DatabaseSettings, config)) as connection, connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(sql.text("dead_letter_page"), page).fetchall()
    if as_json:
        print(page_json(rows, limit))
        return
    form = "{:>8}  {:<19} {:>5} {:>7}  {:<22} {:<36}  {}"
    print(form.format("id", "at", "times", "records", "reason", "topic", "place"))
    for row in rows:
        names = ("times", "records", "reason", "topic", "place")
        print(form.format(str(row["id"]), str(row["at"])[:19], *(str(row[name]) for name in names)))
    if len(rows) == limit:
        print(f"more: --after {rows[-1]['id']}")


@app.command()
@command
def show(
    letter: Annotated[int, typer.Argument(help="Id of the dead letter.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """One dead letter with its payload: where it broke, how often it came, what became of it."""
    with connect(load(DatabaseSettings, config)) as connection, connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(sql.text("dead_letter_get"), {"id": letter}).fetchone()
    if row is None:
        raise CitynetError(f"there is no dead letter {letter}")
    payload = bytes(row.pop("payload"))
    if as_json:
        text = payload.decode("utf-8", "backslashreplace")
        print(json.dumps(row | {"payload_hex": payload.hex(), "payload_text": text}, default=plain))
        return
    for name, value in row.items():
        if value is not None:
            print(f"{name:<16} {plain(value)}")
    print("\n".join(_dump(payload[:_TEXT_BYTES_MAX])))
    if len(payload) > _TEXT_BYTES_MAX:
        print(f"… {len(payload) - _TEXT_BYTES_MAX} bytes more: --json")


def _dump(payload: bytes) -> list[str]:
    """Offset, sixteen bytes in hexadecimal, and as text."""
    lines = []
    for start in range(0, len(payload), 16):
        part = payload[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:08x}  {part.hex(' '):<47}  {text}")
    return lines


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the letters of one redrive."""

    asked: int
    redriven: int
    stored: int
    waiting: int
    failed: list[tuple[int, str]]


@app.command()
@command
def redrive(
    letters: Annotated[list[int] | None, typer.Argument(help="Ids of dead letters.")] = None,
    config: ConfigOption = None,
    gateway: GatewayOption = None,
    topic: TopicOption = None,
    reason: ReasonOption = None,
    since_text: SinceOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every open dead letter.")] = False,
    content_type: Annotated[str | None, typer.Option(help="What direct and field messages really are.")] = None,
    by: Annotated[str | None, typer.Option(help="Who asks; by default the user of this shell.")] = None,
    wait_s: Annotated[float, typer.Option(min=0, help="How long to wait for the workers.")] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Have dead letters tried again by the workers; each is stored at most once, however often it is asked for.

    Exit 1 while some still fail or wait; a request that waits is kept and done when its worker runs.
    """
    if not (letters or gateway or topic or reason or since_text or every):
        raise typer.BadParameter("name letters by id, by a filter, or say --all")
    if content_type is not None and not formats.is_known(content_type):
        raise typer.BadParameter(f"no decoder for the content type {content_type!r}")
    picked = {
        "letters": letters or None, "gateway": gateway, "topic": topic, "reason": reason, "since": since(since_text),
        "limit": REDRIVE_MAX,
    }  # fmt: skip
    sources = Sources(load(IngestSettings, config).sources)
    with connect(load(DatabaseSettings, config)) as connection:
        found = [(int(str(i)), str(t)) for i, t in connection.execute(sql.text("dead_letter_pick"), picked).fetchall()]
        ids = [letter for letter, _ in found]
        shards = [shard_of_topic(topic, sources) for _, topic in found]
        request = {"letters": ids, "shards": shards, "by": by or getpass.getuser(), "content_type": content_type}
        connection.execute(sql.text("redrive_ask"), request)
        outcome = _wait(connection, ids, wait_s)
    _tell(outcome, as_json)
    if outcome.failed or outcome.waiting:
        raise typer.Exit(1)


def _wait(connection: Connection, letters: Sequence[int], wait_s: float) -> Outcome:
    deadline = time.monotonic() + wait_s
    while True:
        rows = connection.execute(sql.text("redrive_look"), {"letters": list(letters)}).fetchall()
        waiting = sum(bool(is_waiting) for _, is_waiting, _, _, _ in rows)
        if not waiting or time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    done = [int(str(stored)) for _, _, is_done, stored, _ in rows if is_done]
    failed = [
        (int(str(letter)), str(error)) for letter, is_waiting, is_done, _, error in rows if not (is_waiting or is_done)
    ]
    return Outcome(len(letters), len(done), sum(done), waiting, failed)


def _tell(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        failed = [{"id": letter, "error": error} for letter, error in outcome.failed]
        body = {"asked": outcome.asked, "redriven": outcome.redriven, "stored": outcome.stored}
        print(json.dumps(body | {"waiting": outcome.waiting, "failed": failed}))
        return
    for letter, error in outcome.failed:
        print(f"{letter:>8}  still fails: {error}")
    print(
        f"{outcome.asked} asked, {outcome.redriven} redriven giving {outcome.stored} readings, "
        f"{len(outcome.failed)} still fail, {outcome.waiting} wait for their worker"
    )
