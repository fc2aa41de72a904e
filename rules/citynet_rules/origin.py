"""Where methane in a void comes from, sewer biogas or a leaking pipe: an opinion beside the verdict. Pure, in event time.

It is made of words, each of a witness rule that `tells` (`citynet_rules.kinds.witness`), and of what was thought before:

- ``leak`` if every word that holds is leak; it stays for the rest of the alert;
- ``biogas`` as long as every word that holds is biogas, and none was leak in this alert: a leak on top of biogas is not
  forgotten when the half hour in which it showed is over;
- ``unknown`` otherwise: nobody speaks, or they contradict each other or did.

The asymmetry is on purpose: biogas explodes as a leak does, and who takes a leak for biogas sends the wrong crew. So the
opinion says whom to call first; what is unknown is called in as a leak, and no level, delay or audience looks at it.
Source: domain reference 2.1 (biogas: slow, with hydrogen sulphide; leak: fast, in neighbouring wells), status D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

BIOGAS, LEAK, UNKNOWN = "biogas", "leak", "unknown"
UNASKED = ""  # no rule tells of this series
DISPUTED = "disputed"  # a leak was spoken of in this alert, and never alone: told as unknown
_CALL = {
    BIOGAS: (
        "来源判断：更像污水沼气（{why}）。沼气同样会爆炸，级别和先期处置不变：先联系排水管线权属单位，并告知燃气企业。",
        "Origin: rather sewer biogas ({why}). Biogas explodes too, level and first steps stay: call the sewer's owner first, "
        "and tell the gas company.",
    ),
    LEAK: (
        "来源判断：更像燃气管道泄漏（{why}）。立即联系燃气企业抢修。",
        "Origin: rather a leak of the gas pipe ({why}). Call the gas company's emergency crew at once.",
    ),
    UNKNOWN: (
        "来源暂不能判断（{why}），按燃气泄漏处置：联系燃气企业抢修，并告知排水管线权属单位。",
        "Origin: cannot be told ({why}); treat it as a leak: call the gas company's emergency crew, tell the sewer's owner.",
    ),
}
_KNOWN = {
    UNKNOWN: ("没有测点能够说明", "no witness speaks"),
    DISPUTED: ("证据相互矛盾", "the evidence is at odds"),
    LEAK: ("此前已判为泄漏", "it was found to be one before"),
}


class Word(NamedTuple):
    """What one rule says at a time, why in Chinese and English, and the evidence."""

    state: str
    zh: str
    en: str
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Origin:
    """The opinion at a time: `memory` is its state, to be handed in again; the words that hold; sentences that end with whom
    to call."""

    memory: str
    words: tuple[Word, ...]
    zh: str
    en: str

    @property
    def state(self) -> str:
        """What is told: ``biogas``, ``leak`` or ``unknown``."""
        return UNKNOWN if self.memory == DISPUTED else self.memory

    def to_json(self) -> dict[str, Any]:
        evidence = [{"says": word.state, "why_zh": word.zh, "why_en": word.en, **word.facts} for word in self.words]
        return {"state": self.state, "evidence": evidence, "text_zh": self.zh, "text_en": self.en}


def judge(words: Sequence[Word], before: str) -> Origin:
    """The opinion when these words hold, `before` being the memory of the one so far."""
    said = {word.state for word in words}
    if before == LEAK or said == {LEAK}:
        memory = LEAK
    elif before == DISPUTED or LEAK in said:
        memory = DISPUTED
    else:
        memory = BIOGAS if BIOGAS in said else UNKNOWN
    reasons = [word for word in words if memory in (DISPUTED, word.state)]
    known = [_KNOWN[memory]] if memory in _KNOWN and (memory != LEAK or not reasons) else []
    zh = "；".join([*(zh for zh, _ in known), *(word.zh for word in reasons)])
    en = "; ".join([*(en for _, en in known), *(word.en for word in reasons)])
    call_zh, call_en = _CALL[UNKNOWN if memory == DISPUTED else memory]
    return Origin(memory, tuple(words), call_zh.format(why=zh), call_en.format(why=en))
