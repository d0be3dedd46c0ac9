"""`check_linearizable`: the planner.

Linearizability is local (Herlihy & Wing 1990): a history is linearizable iff the part of every
key is. So keys are decided one by one, each by the cheapest that can: greedily where little
overlaps, by zones when the written values are unique, else by the register search, and for other
data types by the generic search of `wgl.py`. Keys that need a search run in rounds of growing
budgets: one hopeless key must not keep another from telling its violation in a millisecond. A
register search that does not get any further is looked at by `register_refute.py`.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

from labs.harness.checkers import wgl
from labs.harness.checkers.explain import tell_conflict, tell_search
from labs.harness.checkers.greedy import hard
from labs.harness.checkers.models import MODELS, Model
from labs.harness.checkers.register_order import order
from labs.harness.checkers.register_refute import refuted
from labs.harness.checkers.register_search import RegisterSearch
from labs.harness.checkers.registers import KeyOps, by_search, by_zones, split
from labs.harness.checkers.result import Result, collector_off
from labs.harness.checkers.zone_pass import undecided
from labs.harness.checkers.zones import Conflict
from labs.harness.history import History, Op

FIRST_BUDGET = 500
"""Nodes of the search in the first round; every round adds a quarter."""

TURN_S = 0.5
"""No key is searched for much longer in one turn, so that a timeout is not overrun."""

SHORT = 200
"""Operations of a history below which a pass over all keys at once gains nothing."""

MAX_MEMORY = 2_000_000
"""States remembered by all searches together (some 400 MB) before the verdict is "unknown"."""

Search = RegisterSearch | wgl.Search


def check_linearizable(
    history: History,
    model: str | Model = "register",
    *,
    timeout_s: float = 60.0,
    explain: bool = True,
    witness: bool = False,
    initial: Any = None,
) -> Result:
    """Is there one order of all operations, consistent with real time, that the model allows?

    Args:
        history: what to judge.
        model: one of `MODELS`, or a model of your own (any `Model` is searched generically).
        timeout_s: after that the verdict is "unknown".
        explain: attach a counterexample when the history is not linearizable.
        witness: attach the order found, per key, when it is (zones do not make one: the keys that
            they decide are searched as well).
        initial: the value of a register before any write.

    Raises:
        ValueError: the model is unknown, or does not have an operation of the history.
    """
    if isinstance(model, str):
        if model not in MODELS:
            raise ValueError(f"no model {model!r}; there are {', '.join(MODELS)}")
        model = MODELS[model]
    plan = _Plan(history, time.monotonic() + timeout_s, explain, witness)
    with collector_off():
        if model.name in ("register", "cas-register") and model is MODELS[model.name]:
            return plan.registers(initial)
        return plan.generic(model)


class _Plan:
    """One check: searches that still run, and what is known so far."""

    def __init__(self, history: History, deadline: float, explain: bool, witness: bool) -> None:
        self.history = history
        self.deadline = deadline
        self.explain = explain
        self.witness = witness
        self.used: Counter[str] = Counter()
        self.stats: dict[str, Any] = {"operations": len(history.ops), "algorithms": self.used}
        self.searches: dict[Hashable, Search] = {}

    def registers(self, initial: Any) -> Result:
        """Registers, key by key: greedily, by zones, else by search."""
        rest: Sequence[Op] = self.history.ops
        if not self.witness and len(rest) >= SHORT:
            rest, decided = hard(rest, initial)
            if decided:
                self.used["greedy zones"] = decided
            left, decided = undecided(rest, initial)
            if decided:
                self.used["zones"] = decided
                rest = [op for op in rest if op.key in left] if left else ()
        keys = split(rest)
        self.stats["keys"] = len(keys) + self.used.total()
        for key, ops in keys.items():
            verdict = by_zones(ops, initial)
            if isinstance(verdict, Conflict):
                self.used["zones"] += 1
                story = tell_conflict(self.history, key, verdict) if self.explain else None
                return Result(False, "zones", story, stats=self.stats)
            if verdict is None:
                self.used["register search"] += 1
                self.searches[key] = by_search(ops, initial)
            else:
                self.used["zones"] += 1
                if self.witness:
                    self.searches[key] = by_search(ops, initial)
        return self._rounds("register search", keys, initial)

    def generic(self, model: Model) -> Result:
        """Any model, part by part."""
        parts: defaultdict[Hashable, tuple[list[Op], list[Op]]] = defaultdict(lambda: ([], []))
        for op in self.history.ops:
            if op.f not in model.operations:
                known = ", ".join(model.operations)
                raise ValueError(f"{model.name} has no operation {op.f!r} (it has {known})")
            if op.type != "fail" or op.extra.get("mismatch") or "current" in op.extra:
                parts[model.partition(op)][op.type == "info"].append(op)
        self.stats["keys"] = len(parts)
        for key, (completed, pending) in parts.items():
            self.searches[key] = wgl.Search(model, completed, pending)
            self.used["Wing-Gong-Lowe"] += 1
        return self._rounds("Wing-Gong-Lowe", {}, None)

    def _rounds(self, algorithm: str, keys: dict[str | None, KeyOps], initial: Any) -> Result:
        """Run the searches in rounds of growing budgets until each has a verdict."""
        budget = FIRST_BUDGET
        undecided = dict(self.searches)
        late, fastest = False, 250_000
        while undecided and not late:
            for key, search in list(undecided.items()):
                started, before = time.monotonic(), search.nodes
                verdict = search.run(budget)
                if isinstance(search, RegisterSearch) and search.stuck and refuted(search):
                    verdict = False
                took = time.monotonic() - started
                if took > TURN_S:
                    fastest = min(fastest, int((search.nodes - before) * TURN_S / took))
                if verdict is False:
                    self._count(undecided)
                    story = None
                    if self.explain:
                        ops = keys.get(key) if key is None or isinstance(key, str) else None
                        story = tell_search(self.history, key, search, ops, initial)
                    return Result(False, algorithm, story, stats=self.stats)
                if verdict is True:
                    search.forget()
                    del undecided[key]
                late = time.monotonic() > self.deadline
                if late:
                    break
            remembered = sum(search.remembered for search in undecided.values())
            full = all(search.exhausted_memory for search in undecided.values())
            late = late or full or remembered > MAX_MEMORY
            budget = max(min(budget * 5 // 4, fastest), FIRST_BUDGET)
        self._count(undecided)
        names = " and ".join(sorted(self.used, reverse=True)) or "zones"
        result = Result("unknown" if undecided else True, names, stats=self.stats)
        if self.witness and not undecided:
            result.linearization = {
                key: order(search, search.solution)
                if isinstance(search, RegisterSearch)
                else search.order(search.solution)
                for key, search in self.searches.items()
            }
        return result

    def _count(self, undecided: dict[Hashable, Search]) -> None:
        self.stats["nodes"] = sum(search.nodes for search in self.searches.values())
        self.stats["undecided keys"] = list(undecided)
