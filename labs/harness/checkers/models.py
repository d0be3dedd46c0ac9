"""Sequential specifications: what each operation may return when operations come one at a time.

The shape is porcupine's. A step gets a state and an operation and says whether the operation may
happen there with the result it had, and the state after it. States are immutable and hashable. An
operation of unknown fate (`op.pending`) has no result: any is right.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from labs.harness.checkers.result import freeze
from labs.harness.history import Op

State = Hashable
Step = Callable[[Any, Op], tuple[bool, Any]]


def by_key(op: Op) -> Hashable:
    """Keys do not influence each other."""
    return op.key


def as_one(op: Op) -> Hashable:
    """One object: operations touch several keys at once."""
    del op
    return None


@dataclass(frozen=True, slots=True)
class Model:
    """A data type.

    Attributes:
        operations: the names (`f`) that it has.
        read_only: those that never change the state.
        init: the first state.
        step: (state, operation) -> (legal, state after).
        partition: operations with different results are independent of each other.
        resets: operations after which the state does not depend on what came before.
        may_follow: (state, read-only operation) -> can it still be legal later on, as long as no
            operation of `resets` comes in between? Optional: it spares the search what is hopeless.
    """

    name: str
    operations: tuple[str, ...]
    read_only: tuple[str, ...]
    init: State
    step: Step
    partition: Callable[[Op], Hashable] = by_key
    resets: tuple[str, ...] = ()
    may_follow: Callable[[Any, Op], bool] | None = None

    def describe_operation(self, op: Op) -> str:
        """`write(3)`, `read -> 3`."""
        argument = "" if op.value is None or op.f in self.read_only else repr(op.value)
        if op.type != "ok":
            return f"{op.f}({argument}) -> {'?' if op.pending else 'refused'}"
        told = op.f in self.read_only or op.f == "dequeue" or op.f == "txn"
        return f"{op.f}({argument})" + (f" -> {op.output!r}" if told else "")

    def describe_state(self, state: Any) -> str:
        """The state for a human."""
        return repr(sorted(state, key=repr)) if isinstance(state, frozenset) else repr(state)


def register_step(state: Any, op: Op) -> tuple[bool, Any]:
    """Read, write, cas, delete; a failed cas says what its `extra` says (see `Op`)."""
    if op.f == "read":
        return op.type == "info" or freeze(op.output) == state, state
    if op.f == "write":
        return True, freeze(op.value)
    if op.f == "delete":
        return True, None
    old, new = freeze(op.value[0]), freeze(op.value[1])
    if op.type == "fail":
        if "current" in op.extra:
            return freeze(op.extra["current"]) == state, state
        return old != state or "mismatch" not in op.extra, state
    return old == state, new


def _multi_register(state: Any, op: Op) -> tuple[bool, Any]:
    """A transaction on several registers: `[["r", key, value], ["w", key, value], …]`."""
    values = dict(state)
    done = op.value if op.type == "info" else op.output
    for f, key, value in done:
        name = freeze(key)
        if f == "w":
            values[name] = freeze(value)
        elif op.type != "info" and values.get(name) != freeze(value):
            return False, state
    return True, frozenset(values.items())


def _set(state: Any, op: Op) -> tuple[bool, Any]:
    if op.f == "read":
        return op.type == "info" or frozenset(map(freeze, op.output or ())) == state, state
    element = frozenset((freeze(op.value),))
    return True, (state | element) if op.f == "add" else (state - element)


def _set_grows(state: Any, op: Op) -> bool:
    """Without a remove, elements only come."""
    return bool(state <= frozenset(map(freeze, op.output or ())))


def _queue(state: Any, op: Op) -> tuple[bool, Any]:
    """First in, first out; a dequeue of an empty queue returns None."""
    if op.f == "enqueue":
        return True, (*state, freeze(op.value))
    if not state:
        return op.type == "info" or op.output is None, state
    return op.type == "info" or state[0] == freeze(op.output), state[1:]


def _lock(state: Any, op: Op) -> tuple[bool, Any]:
    """Held by one process at a time, released by its holder. `value` names the holder if given."""
    holder = op.process if op.value is None else freeze(op.value)
    if op.f == "acquire":
        return state is None, holder
    return state == holder, None


def _counter(state: Any, op: Op) -> tuple[bool, Any]:
    if op.f == "read":
        return op.type == "info" or op.output == state, state
    return True, state + (1 if op.value is None else op.value)


def _key_value(state: Any, op: Op) -> tuple[bool, Any]:
    """A string per key: read, write (put), append."""
    f = op.f
    if f == "read":
        return (op.output or "") == state or op.type == "info", state
    return True, state + op.value if f == "append" else op.value


def _text_grows(state: Any, op: Op) -> bool:
    """Without a write, text is only appended."""
    return bool((op.output or "").startswith(state))


MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model("register", ("read", "write", "cas", "delete"), ("read",), None, register_step),
        Model("cas-register", ("read", "write", "cas", "delete"), ("read",), None, register_step),
        Model("multi-register", ("txn",), (), frozenset(), _multi_register, as_one),
        Model(
            "set",
            ("add", "remove", "read"),
            ("read",),
            frozenset(),
            _set,
            resets=("remove",),
            may_follow=_set_grows,
        ),
        Model("queue", ("enqueue", "dequeue"), (), (), _queue),
        Model("lock", ("acquire", "release"), (), None, _lock),
        Model("counter", ("add", "read"), ("read",), 0, _counter),
        Model(
            "key-value",
            ("read", "write", "append"),
            ("read",),
            "",
            _key_value,
            resets=("write",),
            may_follow=_text_grows,
        ),
    )
}
