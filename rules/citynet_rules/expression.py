"""Expressions over readings: text to a checked tree. `evaluate` computes it over columns.

    100 [%] * (flow_in - flow_out) / max(flow_in, 0.5 [m3/h])

    or         a or b             words, comparisons and numbers in this order of binding, weakest first
    and        a and b
    not        not a
    compare    a < b              < <= > >= == !=, not chained
    sum        a + b, a - b
    product    a * b, a / b
    sign       -a
    power      a ** 2             the exponent of a quantity with a unit is a number
    atom       1.5, 3 [kPa], name, (a), f(a, …)

Functions: abs sqrt exp log min max clip(x, low, high) where(condition, a, b), and of an operand's past, t a constant time:
delta(x, t), mean(x, t), lag(x, t). There is nothing else: no names but the operands, no attributes, no calls of anything.
Everything is computed in base units of the SI, so that units convert by themselves and mistakes are found when the file is
read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite

from citynet_rules import unit
from citynet_rules.unit import Dimension, Unit, UnitError

LENGTH_MAX = 1000
DEPTH_MAX = 32
OPERATORS_MAX = 100  # a chain of them is as deep a tree, and trees are walked by recursion
WINDOW_S_MAX = 86_400.0
ARGUMENTS_MAX = 16
BOOL = "condition"
Type = Dimension | str
"""A dimension, or `BOOL`."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<op>\*\*|<=|>=|==|!=|[-+*/<>(),])|(?P<unit>\[(?:[^\[\]]|\[[^\[\]]*\])*\]))"
)
_COMPARE = frozenset({"<", "<=", ">", ">=", "==", "!="})
_COUNTS = {
    "abs": (1, 1), "sqrt": (1, 1), "exp": (1, 1), "log": (1, 1), "min": (2, ARGUMENTS_MAX), "max": (2, ARGUMENTS_MAX),
    "clip": (3, 3), "where": (3, 3), "delta": (2, 2), "mean": (2, 2), "lag": (2, 2),
}  # fmt: skip
PAST = frozenset({"delta", "mean", "lag"})
WORDS = frozenset({"and", "or", "not"})
RESERVED = WORDS | _COUNTS.keys()


class ExpressionError(ValueError):
    """What is wrong with an expression, and at which character (from 1)."""

    def __init__(self, at: int, message: str) -> None:
        self.at = at
        super().__init__(f"column {at}: {message}")


@dataclass(frozen=True, slots=True)
class Number:
    """A constant in base units."""

    at: int
    value: float
    unit: Unit


@dataclass(frozen=True, slots=True)
class Name:
    """The value of an operand."""

    at: int
    name: str


@dataclass(frozen=True, slots=True)
class Past:
    """`delta`, `mean` or `lag` of an operand over `window_us`."""

    at: int
    function: str
    name: str
    window_us: int


@dataclass(frozen=True, slots=True)
class Call:
    """An operator (``+``, ``neg``, ``and``, …) or a function of other nodes."""

    at: int
    function: str
    arguments: tuple[Node, ...]


Node = Number | Name | Past | Call


@dataclass(frozen=True, slots=True)
class Formula:
    """A checked expression: its tree, the operands it uses, and what it looks back at."""

    node: Node
    names: tuple[str, ...]
    pasts: tuple[Past, ...]


def parse(text: str) -> Node:
    """Parse an expression of whatever operands.

    Raises:
        ExpressionError: its length, its syntax.
    """
    if len(text) > LENGTH_MAX:
        raise ExpressionError(1, f"{len(text)} characters, at most {LENGTH_MAX}")
    return _Parser(text).whole()


def compile_(text: str, operands: Mapping[str, Unit], result: Unit) -> Formula:
    """Parse and check an expression whose operands have these units and whose value has the unit `result`.

    Raises:
        ExpressionError: syntax, a name that is no operand, units that do not fit.
    """
    node = parse(text)
    found = _type(node, operands)
    wanted: Type = result.dimension
    if found == BOOL:
        found = ()
    if found != wanted:
        raise ExpressionError(node.at, f"the result is in {_words(found)}, the unit says {_words(wanted)}")
    pasts = tuple(dict.fromkeys(n for n in walk(node) if isinstance(n, Past)))
    names = tuple(dict.fromkeys(n.name for n in walk(node) if isinstance(n, Name | Past)))
    if not names:
        raise ExpressionError(1, "there is no operand in it")
    return Formula(node, names, pasts)


def walk(node: Node) -> list[Node]:
    """`node` and all below it."""
    below = [inner for argument in node.arguments for inner in walk(argument)] if isinstance(node, Call) else []
    return [node, *below]


class _Parser:
    """Recursive descent; `next` is the token at hand: kind, text, column."""

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.place = 0
        self.depth = 0

    @property
    def at(self) -> int:
        return self.tokens[self.place][2]

    def whole(self) -> Node:
        node = self.choice()
        if self.tokens[self.place][0] != "end":
            raise ExpressionError(self.at, f"{self.tokens[self.place][1]!r} does not belong here")
        return node

    def take(self, *texts: str) -> tuple[str, int] | None:
        kind, text, at = self.tokens[self.place]
        if kind in {"op", "name"} and text in texts:
            self.place += 1
            return text, at
        return None

    def need(self, text: str) -> None:
        if self.take(text) is None:
            raise ExpressionError(self.at, f"{text!r} was expected")

    def choice(self) -> Node:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise ExpressionError(self.at, f"nested deeper than {DEPTH_MAX}")
        node = self.both()
        while found := self.take("or"):
            node = Call(found[1], "or", (node, self.both()))
        self.depth -= 1
        return node

    def both(self) -> Node:
        node = self.turned()
        while found := self.take("and"):
            node = Call(found[1], "and", (node, self.turned()))
        return node

    def turned(self) -> Node:
        if found := self.take("not"):
            return Call(found[1], "not", (self.deeper(self.turned),))
        node = self.sum()
        if found := self.take(*_COMPARE):
            node = Call(found[1], found[0], (node, self.sum()))
            if again := self.take(*_COMPARE):
                raise ExpressionError(again[1], "comparisons cannot be chained: use and")
        return node

    def sum(self) -> Node:
        node = self.product()
        while found := self.take("+", "-"):
            node = Call(found[1], found[0], (node, self.product()))
        return node

    def product(self) -> Node:
        node = self.sign()
        while found := self.take("*", "/"):
            node = Call(found[1], found[0], (node, self.sign()))
        return node

    def sign(self) -> Node:
        if found := self.take("-"):
            return Call(found[1], "neg", (self.deeper(self.sign),))
        node = self.atom()
        if found := self.take("**"):
            node = Call(found[1], "**", (node, self.deeper(self.sign)))
        return node

    def deeper(self, part: object) -> Node:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise ExpressionError(self.at, f"nested deeper than {DEPTH_MAX}")
        node: Node = part()  # type: ignore[operator]
        self.depth -= 1
        return node

    def atom(self) -> Node:
        kind, text, at = self.tokens[self.place]
        if kind == "number":
            self.place += 1
            return self.number(float(text), at)
        if self.take("("):
            node = self.choice()
            self.need(")")
            return node
        if kind != "name" or text in WORDS:
            raise ExpressionError(at, "a value was expected" + (f", not {text!r}" if text else ""))
        self.place += 1
        return self.call(text, at) if self.take("(") else Name(at, text)

    def number(self, value: float, at: int) -> Number:
        kind, text, where = self.tokens[self.place]
        if kind != "unit":
            return Number(at, value, unit.ONE)
        self.place += 1
        try:
            of = unit.parse(text[1:-1].strip())
        except UnitError as error:
            raise ExpressionError(where, str(error)) from None
        return Number(at, value * float(of.factor) + float(of.offset), of)

    def call(self, name: str, at: int) -> Node:
        if name not in _COUNTS:
            raise ExpressionError(at, f"unknown function {name!r} (known: {', '.join(sorted(_COUNTS))})")
        arguments = [self.choice()]
        while self.take(","):
            arguments.append(self.choice())
        self.need(")")
        low, high = _COUNTS[name]
        if not low <= len(arguments) <= high:
            wanted = str(low) if low == high else f"{low} to {high}"
            raise ExpressionError(at, f"{name} takes {wanted} values, not {len(arguments)}")
        return _past(name, arguments, at) if name in PAST else Call(at, name, tuple(arguments))


def _tokens(text: str) -> list[tuple[str, str, int]]:
    found, place = [], 0
    while text[place:].strip():
        match = _TOKEN.match(text, place)
        if match is None:
            at = place + len(text[place:]) - len(text[place:].lstrip())
            raise ExpressionError(at + 1, f"{text[at]!r} is not understood")
        kind = str(match.lastgroup)
        found.append((kind, match[kind], match.start(kind) + 1))
        place = match.end()
    operators = [at for kind, word, at in found if word in WORDS or (kind == "op" and word not in "(,)")]
    if len(operators) > OPERATORS_MAX:
        raise ExpressionError(operators[OPERATORS_MAX], f"more than {OPERATORS_MAX} operators")
    return [*found, ("end", "", len(text) + 1)]


def _past(name: str, arguments: list[Node], at: int) -> Past:
    """A look back: the first argument is an operand, the second a constant time."""
    operand, window = arguments
    if not isinstance(operand, Name):
        raise ExpressionError(operand.at, f"{name} looks back at an operand, not at an expression")
    if not isinstance(window, Number) or window.unit.dimension != unit.parse("s").dimension:
        raise ExpressionError(window.at, f"{name} takes a constant time such as 10 [min]")
    if not 0 < window.value <= WINDOW_S_MAX:
        raise ExpressionError(window.at, f"{window.value:g} s: above 0, at most {WINDOW_S_MAX:g} s")
    return Past(at, name, operand.name, round(window.value * 1_000_000))


def _type(node: Node, operands: Mapping[str, Unit]) -> Type:
    """Dimension of a node, or `BOOL`."""
    if isinstance(node, Number):
        if not isfinite(node.value):
            raise ExpressionError(node.at, "the number is too large")
        return node.unit.dimension
    if isinstance(node, Name | Past):
        if node.name not in operands:
            raise ExpressionError(
                node.at, f"{node.name!r} is no operand (known: {', '.join(sorted(operands)) or 'none'})"
            )
        return operands[node.name].dimension
    types = [_type(argument, operands) for argument in node.arguments]
    return _TYPES[node.function](node, types)


def _quantities(node: Call, types: list[Type]) -> list[Dimension]:
    for argument, of in zip(node.arguments, types, strict=True):
        if isinstance(of, str):
            raise ExpressionError(argument.at, f"{node.function!r} takes values, this is a condition")
    return [of for of in types if not isinstance(of, str)]


def _same(node: Call, types: list[Type]) -> Type:
    first, *others = _quantities(node, types)
    for other in others:
        if other != first:
            raise ExpressionError(node.at, f"{node.function!r} of {_words(first)} and {_words(other)}")
    return first


def _compared(node: Call, types: list[Type]) -> Type:
    _same(node, types)
    return BOOL


def _conditions(node: Call, types: list[Type]) -> Type:
    for argument, of in zip(node.arguments, types, strict=True):
        if of != BOOL:
            raise ExpressionError(argument.at, f"{node.function!r} takes conditions, this is a value in {_words(of)}")
    return BOOL


def _times(node: Call, types: list[Type]) -> Type:
    one, other = _quantities(node, types)
    return unit.product(one, other, -1 if node.function == "/" else 1)


def _power(node: Call, types: list[Type]) -> Type:
    base, exponent = _quantities(node, types)
    if exponent:
        raise ExpressionError(node.arguments[1].at, f"an exponent has no unit, this is in {_words(exponent)}")
    if not base:
        return base
    constant = node.arguments[1]
    sign = 1
    if isinstance(constant, Call) and constant.function == "neg":
        sign, constant = -1, constant.arguments[0]
    if not isinstance(constant, Number):
        raise ExpressionError(constant.at, f"the exponent of a value in {_words(base)} must be a number")
    return unit.power(base, sign * Fraction(constant.value).limit_denominator(12))


def _root(node: Call, types: list[Type]) -> Type:
    return unit.power(_quantities(node, types)[0], Fraction(1, 2))


def _bare(node: Call, types: list[Type]) -> Type:
    (of,) = _quantities(node, types)
    if of:
        raise ExpressionError(node.arguments[0].at, f"{node.function} takes a bare number, this is in {_words(of)}")
    return of


def _where(node: Call, types: list[Type]) -> Type:
    if types[0] != BOOL:
        raise ExpressionError(node.arguments[0].at, "the first value of where is a condition")
    return _same(Call(node.at, "where", node.arguments[1:]), types[1:])


_TYPES = {
    **dict.fromkeys(["+", "-", "neg", "abs", "min", "max", "clip"], _same),
    **dict.fromkeys(sorted(_COMPARE), _compared),
    **dict.fromkeys(["and", "or", "not"], _conditions),
    **dict.fromkeys(["*", "/"], _times),
    **dict.fromkeys(["exp", "log"], _bare),
    "**": _power, "sqrt": _root, "where": _where,
}  # fmt: skip


def _words(of: Type) -> str:
    return of if isinstance(of, str) else unit.named(of)
