"""A process with one commit in flight and the next one planned, which a failpoint then kills.

``python -m tests.faults.pipelined_child DSN START_US`` prints ``told N`` for every acknowledgement.
"""

from __future__ import annotations

import sys

from citynet_ingest.commit import Answers
from tests.pipelined import Pipe, batch, blocked, holding

GATEWAY, EACH, COMMITS = "gw-kill", 10, 6


def tell(answers: Answers) -> None:
    for ack in answers.acks.values():
        print("told", ack.seq, flush=True)


def run(dsn: str, start_us: int) -> None:
    pipe = Pipe(dsn, tell)
    parcels = [batch(n + 1, GATEWAY, n * EACH + 1, [float(n)] * EACH, start_us) for n in range(COMMITS)]
    pipe.give(parcels[0]).result()
    pipe.settle()  # series, cursor and partitions are there
    with holding(dsn):
        for parcel in parcels[1:]:
            pipe.give(parcel)
        blocked(dsn)
        pipe.wait_planned(GATEWAY, 3 * EACH)
    pipe.settle()
    pipe.stop()


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
