"""What a kind over several series must offer: the objects of a rule, and the score of an object at each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from citynet.batch import F64, I64
from citynet_rules.kinds.kind import Kind, Rows

if TYPE_CHECKING:
    from citynet_rules.joint.join import Block


class Front(Protocol):
    """One rule's way from readings of several series to a score.

    Attributes:
        wait_us: how long a silent member is waited for.
    """

    wait_us: int

    @property
    def objects(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """(device, metric) of the members, by the object's name; the first one lends its id to alerts."""
        ...

    def channels(self, roles: int) -> int:
        """How many readings are remembered an object that has up to `roles` members."""
        ...

    def score(self, block: Block, at: I64) -> F64:
        """The score at each of the rows `at`; NaN where there is none."""
        ...


@runtime_checkable
class Learner(Front, Protocol):
    """A front that learns, an object at a time.

    Attributes:
        memory: its columns of the object's state, zero at first: fields of a numpy dtype, little-endian.
    """

    memory: Sequence[tuple[Any, ...]]

    def tries(self, state: Rows) -> I64:
        """How often the object of each row learned in vain; 0 where there is something learned, or not yet."""
        ...

    def explain(self, state: Rows) -> tuple[tuple[float, float] | None, dict[str, Any]]:
        """What the evidence of an object's alerts says of what was learned, `state` being the object's row: the expected band,
        and more. It must not change once a score was told."""
        ...


@runtime_checkable
class JointKind(Kind, Protocol):
    """A kind whose rules watch groups of series. Its kernel is fed with the scores."""

    def front(self, rule: Any) -> Front:
        """The way from readings to scores for this rule."""
        ...
