"""What a gateway does besides keeping and sending: clock, sense, interlocks, hands; and where the service meets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from citynet.control import CommandResult, Stream
from citynet.notes import Note
from citynet.reading import Reading
from citynet.wire import ALARM, TELEMETRY
from citynet_gateway import metrics
from citynet_gateway.drivers.port import Driver, Offer, Resumed
from citynet_gateway.hands import Hands, Reach
from citynet_gateway.intake import Part
from citynet_gateway.interlocks import Interlocks
from citynet_gateway.journal import Journal
from citynet_gateway.outputs.port import Output
from citynet_gateway.outputs.worker import Acted, OutputWorker
from citynet_gateway.pushed_config import PushedConfig
from citynet_gateway.sense import Judged, Sense
from citynet_gateway.settings import GatewaySettings
from citynet_gateway.spool import Run
from citynet_gateway.spool.files import Files
from citynet_gateway.timekeeper import Timekeeper

OUTPUTS_STOP_S_MAX = 1.0
TROUBLES_MAX = 32  # of outputs and our own, in a status


class Edge:
    """All of it for one run of the gateway. Methods are called from the service's thread unless they say otherwise.

    Args:
        epoch: the spool's.
        outputs: what interlocks and commands may switch, by name; each interlock's is among them.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        files: Files,
        epoch: int,
        clock: Timekeeper,
        outputs: Mapping[str, Output],
        config: PushedConfig,
    ) -> None:
        folder = settings.data_dir
        self._files = files
        self._settings = settings
        self._config = config
        self.clock = clock
        self._epoch = epoch
        self._has_boot_stamps = False
        self.journal = Journal(settings.id, self.clock.stamp_us)
        self._sense = Sense(settings.sense)
        self._workers = {
            name: OutputWorker(output, settings.output_refresh_s, self._acted) for name, output in outputs.items()
        }
        self.interlocks = Interlocks(
            settings.interlocks,
            self._workers,
            Sense(settings.sense),
            self.journal,
            self.clock.utc_us,
            files,
            folder / "interlocks",
        )
        self._hands: Hands | None = None

    def _acted(self, acted: Acted) -> None:
        self.interlocks.acted(acted)

    def attach(
        self, drivers: Sequence[Driver], publish: Callable[[CommandResult], bool], restart: Callable[[], None]
    ) -> None:
        """Give it hands: what commands may reach. To be called before `start`."""
        reach = Reach(
            self._workers, self.interlocks, drivers, self._config, self.journal, restart, publish, self._utc_if_known
        )
        self._hands = Hands(self._files, self._settings.data_dir / "commands", reach)

    def _utc_if_known(self) -> int | None:
        return self.clock.utc_us() if self.clock.clock.is_known else None

    # --- life

    def start(self, put: Callable[[Offer | Resumed], None]) -> None:
        """Outputs first: they must be in their safe state before anything else happens."""
        for worker in self._workers.values():
            worker.start()
        self.interlocks.start()
        self.journal.start(put)
        if self._hands is not None:
            self._hands.start()

    def turn(self, now_s: float) -> None:
        """Look at the clock if it is time to."""
        if (note := self.clock.turn(now_s)) is not None:
            self.journal.record(note)

    def link(self, *, is_up: bool) -> None:
        """The uplink is there from now on, or it is not."""
        self.clock.link(is_up=is_up)
        if self._hands is not None:
            self._hands.link(is_up=is_up)

    def command(self, payload: bytes, is_retained: bool) -> None:
        """A message on the command topic; from any thread."""
        if self._hands is not None:
            self._hands.take(payload, is_retained)

    def stop(self) -> None:
        """Stop acting: outputs into their state for a stop, commands to their end. Within 3 s."""
        self.interlocks.stop()
        for worker in self._workers.values():
            worker.stop(OUTPUTS_STOP_S_MAX / len(self._workers))
        if self._hands is not None:
            self._hands.stop()
        self.clock.save()

    def troubles(self) -> dict[str, str]:
        """What is wrong, by part, in plain words; only what is."""
        found = {f"output-{name}": worker.error for name, worker in self._workers.items()}
        found |= {"journal": self.journal.trouble(), "config": self._config.problem}
        return dict(islice(((name, text) for name, text in found.items() if text), TROUBLES_MAX))

    # --- readings on their way in

    def tap(self, offer: Offer) -> None:
        """An offer of the field, before anything else happens to it; from the driver's thread."""
        for part in offer.parts:
            self.interlocks.feed(part.readings)

    def judge(self, part: Part, now_s: float) -> Judged:
        """What of a part is to be kept. `keep` once the spool has it."""
        return self._sense.judge(part.readings, now_s, is_alarm=part.stream == ALARM)

    def keep(self, judged: Judged, stream: Stream) -> None:
        """The spool has taken what is kept."""
        judged.commit()
        if judged.suppressed:
            metrics.SENSED.labels("suppressed").inc(judged.suppressed)
        if judged.out_of_range:
            metrics.SENSED.labels("out-of-range").inc(judged.out_of_range)
        if judged.stuck:
            metrics.SENSED.labels("stuck").inc(judged.stuck)
        if stream == TELEMETRY and judged.kept and not self.clock.clock.is_known:
            self._has_boot_stamps = True

    # --- records on their way out

    def holds(self, stream: Stream, epoch: int) -> bool:
        """Whether records of this epoch wait for the clock."""
        if stream == ALARM or (epoch == self._epoch and not self._has_boot_stamps):
            return False
        return self.clock.clock.holds(epoch)

    def dated(self, run: Run) -> tuple[list[Reading], list[tuple[int, Note]]]:
        """Readings and notes of a run with boot stamps turned into UTC."""
        clock = self.clock.clock
        notes = [(position, clock.dated_note(run.epoch, note)) for position, note in run.notes]
        return clock.dated(run.epoch, run.readings), notes
