"""As much of PromQL as the dashboard has, over two scrapes: the grammar is promql-parser's own."""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import promql_parser as grammar

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]

SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
FAMILY = re.compile(r"^# TYPE (\w+) ", re.MULTILINE)

ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
COMPARED: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}
TOGETHER: Mapping[str, Callable[[Iterable[float]], float]] = {"sum": sum, "min": min, "max": max}


def parsed(query: str) -> grammar.Expr:
    """With what Grafana puts in: the widest of its variables."""
    return grammar.parse(query.replace("$__rate_interval", "5m").replace('"$service"', '".*"'))


def selectors(query: str) -> list[grammar.VectorSelector]:
    found: list[grammar.VectorSelector] = []

    def visit(each: grammar.Expr) -> bool:
        if isinstance(each, grammar.MatrixSelector):
            found.append(each.vector_selector)
        elif isinstance(each, grammar.VectorSelector):
            found.append(each)
        return True

    grammar.walk(parsed(query), visit)
    return list({str(each): each for each in found}.values())


@dataclass(frozen=True)
class Scrape:
    """What was measured at a moment, by name of the metric."""

    at: float  # seconds
    samples: Mapping[str, Vector]
    names: frozenset[str]  # also of what has no sample yet

    @classmethod
    def of(cls, at: float, *texts: str) -> "Scrape":
        # prometheus_client's parser would add `_total` to the names of Envoy's counters.
        samples: dict[str, Vector] = {}
        names: set[str] = set()
        for name, labels, value in SAMPLE.findall("\n".join(texts)):
            where = frozenset(LABEL.findall(labels))
            samples.setdefault(name, {})[where] = float(value)
        for text in texts:
            names |= set(FAMILY.findall(text))
        return cls(at, samples, frozenset({*names, *samples}))

    def select(self, selector: grammar.VectorSelector) -> Vector:
        found = self.samples.get(selector.name, {})
        return {
            where: value
            for where, value in found.items()
            if all(holds(each, dict(where)) for each in selector.matchers.matchers)
        }


def holds(matcher: grammar.Matcher, labels: Mapping[str, str]) -> bool:
    value = labels.get(matcher.name, "")
    match str(matcher.op).rpartition(".")[2]:
        case "Equal":
            return value == matcher.value
        case "NotEqual":
            return value != matcher.value
        case "Re":
            return re.fullmatch(matcher.value, value) is not None
        case other:
            raise ValueError(f"labels are not compared by {other} here")


@dataclass(frozen=True)
class Between:
    """Answers queries as of the later of two scrapes; a rate is what happened between them."""

    before: Scrape
    now: Scrape

    def answer(self, query: str) -> Vector:
        found = self._of(parsed(query))
        assert isinstance(found, dict), query
        return found

    def _of(self, asked: grammar.Expr) -> Vector | float:
        match asked:
            case grammar.NumberLiteral():
                return float(asked.val)
            case grammar.ParenExpr():
                return self._of(asked.expr)
            case grammar.VectorSelector():
                return self.now.select(asked)
            case grammar.Call():
                return self._moved(asked)
            case grammar.AggregateExpr():
                return self._together(asked)
            case grammar.BinaryExpr():
                return both(str(asked.op), self._of(asked.lhs), self._of(asked.rhs))
        raise ValueError(f"a query of the kind {type(asked).__name__} is not worked out here")

    def _moved(self, call: grammar.Call) -> Vector:
        (range_,) = call.args
        seconds = {"rate": self.now.at - self.before.at, "increase": 1.0}[call.func.name]
        was = self.before.select(range_.vector_selector)
        now = self.now.select(range_.vector_selector)
        return {where: (value - was.get(where, 0.0)) / seconds for where, value in now.items()}

    def _together(self, asked: grammar.AggregateExpr) -> Vector:
        by = set(asked.modifier.labels) if asked.modifier else set()
        groups: dict[Labels, list[float]] = {}
        found = self._of(asked.expr)
        assert isinstance(found, dict)
        for where, value in found.items():
            groups.setdefault(frozenset(p for p in where if p[0] in by), []).append(value)
        return {where: TOGETHER[str(asked.op)](each) for where, each in groups.items()}


def both(op: str, left: Vector | float, right: Vector | float) -> Vector:
    if op == "or":
        assert isinstance(left, dict)
        assert isinstance(right, dict)
        return right | left
    if isinstance(left, dict) and isinstance(right, dict):
        pairs = {where: (left[where], right[where]) for where in left.keys() & right.keys()}
    elif isinstance(left, dict):
        pairs = {where: (value, float(right)) for where, value in left.items()}  # type: ignore[arg-type]
    else:
        assert isinstance(right, dict)
        pairs = {where: (left, value) for where, value in right.items()}
    if op in COMPARED:
        return {where: one for where, (one, other) in pairs.items() if COMPARED[op](one, other)}
    return {where: ARITHMETIC[op](*pair) for where, pair in pairs.items()}
