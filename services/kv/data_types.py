"""`/counters/{key}`, `/sets/{key}` and `/sequences/{key}` of a store without a leader.

`GET` gives the value; `POST` sends what is to be done, one of

- a counter: `{"increment": 3}` (negative: less). With an `Idempotency-Key` it counts once, at
  whatever node and however often it is repeated; without, a repetition counts again;
- a set: `{"add": element}`, `{"remove": element}`. An add wins over a removal that has not seen it;
  a removal sees what the replicas that answer a read know;
- a sequence: `{"insert": value, "after": id}` (null: at the beginning), also once with an
  `Idempotency-Key`; `{"delete": id}`. The ids are those of `elements` in what a read gives.

`?consistency=` as for plain values. Each of the three has keys of its own: the counter `likes`, the
set `likes` and `/kv/likes` are three things. (What a key holds is in its name because two sides of
a partition could not agree on it otherwise; Riak has bucket types for that.) KV_CONFLICTS says
nothing about them: it is for plain values, which can't be merged.

A `version` grows with every update that is known. Nothing is deleted as a whole. A key has at most
5 000 elements, tombstones of a sequence and idempotency keys, all told; more gets 413.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from services.chassis.app import (
    App,
    Context,
    deadline_of,
    json_response,
    read_json_body,
    single_header,
)
from services.chassis.capacity import Capacity
from services.chassis.errors import BadRequest, NotFound, TooLarge
from services.chassis.leaderless import LeaderlessDriver
from services.chassis.limits import idempotency_key_of, key_of
from services.kv.leaderless import LeaderlessHandlers, Sizes, known, refuse
from services.protocols.crdt.sequence import Identifier
from services.protocols.quorum import Siblings
from services.protocols.quorum.data import (
    Add,
    Data,
    Delete,
    Increment,
    Insert,
    Kind,
    Remove,
    Update,
    key_for,
)

BY_MAX = 2**31 - 1  # so small that no number of updates makes more than 64 bits of them
ELEMENT_BYTES_MAX = 1 << 10
_IDENTIFIER = re.compile(r"([1-9][0-9]{0,14})@(.{1,100})")
_canonical = msgspec.json.Encoder(order="deterministic").encode  # equal elements, equal bytes


class CounterBody(msgspec.Struct, forbid_unknown_fields=True):
    """An update of a counter."""

    increment: int


class SetBody(msgspec.Struct, forbid_unknown_fields=True):
    """An update of a set: one of the two."""

    add: Any = msgspec.UNSET
    remove: Any = msgspec.UNSET


class SequenceBody(msgspec.Struct, forbid_unknown_fields=True):
    """An update of a sequence: an insert, or a delete."""

    insert: Any = msgspec.UNSET
    after: str | msgspec.UnsetType | None = msgspec.UNSET
    delete: str | msgspec.UnsetType = msgspec.UNSET


def counter_update(body: CounterBody, name: str | None) -> Update:
    """Raises BadRequest."""
    if abs(body.increment) > BY_MAX:
        raise BadRequest(f"increment is a number from -{BY_MAX} to {BY_MAX}")
    return Increment(body.increment, name)


def set_update(body: SetBody, name: str | None) -> Update:
    """Raises BadRequest, TooLarge."""
    _no(name, "an add or a removal", "it asks for no more when it is repeated")
    if (body.add is msgspec.UNSET) == (body.remove is msgspec.UNSET):
        raise BadRequest('send {"add": element} or {"remove": element}')
    if body.add is not msgspec.UNSET:
        return Add(_element(body.add))
    return Remove(_element(body.remove))


def sequence_update(body: SequenceBody, name: str | None) -> Update:
    """Raises BadRequest, TooLarge."""
    if (body.insert is msgspec.UNSET) == (body.delete is msgspec.UNSET):
        raise BadRequest('send {"insert": value, "after": id} or {"delete": id}')
    if isinstance(body.delete, str):
        _no(name, "a delete", "it deletes no more when it is repeated")
        if body.after is not msgspec.UNSET:
            raise BadRequest("a delete has no after")
        return Delete(_identifier(body.delete))
    if isinstance(body.after, msgspec.UnsetType):
        raise BadRequest("an insert says after which element; null: at the beginning")
    after = None if body.after is None else _identifier(body.after)
    return Insert(_element(body.insert), after, name)


def _no(name: str | None, what: str, why: str) -> None:
    if name is not None:
        raise BadRequest(f"{what} takes no Idempotency-Key: {why}")


def _element(value: Any) -> bytes:
    data = _canonical(value)
    if len(data) > ELEMENT_BYTES_MAX:
        raise TooLarge(f"an element has at most {ELEMENT_BYTES_MAX} bytes as JSON")
    return data


def _identifier(text: str) -> Identifier:
    match = _IDENTIFIER.fullmatch(text)
    if match is None:
        raise BadRequest(f"an id is one that a read has given, such as 3@n1; not {text[:50]!r}")
    return Identifier(int(match[1]), match[2])


class Shown(NamedTuple):
    """A data type's face: its body, what that asks for, and how its value is shown."""

    kind: Kind
    body: Any
    update: Callable[[Any, str | None], Update]
    show: Callable[[Data], dict[str, Any]]


def show_counter(data: Data) -> dict[str, Any]:
    return {"value": data.counter.value if data.counter else 0}


def show_set(data: Data) -> dict[str, Any]:
    """In the order of their JSON: the same at every node."""
    elements: Any = data.elements.value if data.elements else ()
    return {"value": [msgspec.Raw(element) for element in sorted(elements)]}


def show_sequence(data: Data) -> dict[str, Any]:
    order = data.sequence.order() if data.sequence else []
    values = [data.sequence.elements[at].value for at in order] if data.sequence else []
    return {
        "value": [msgspec.Raw(value) for value in values],
        "elements": [f"{at.time}@{at.node}" for at in order],
    }


FACES = {
    "/counters/": Shown("counter", CounterBody, counter_update, show_counter),
    "/sets/": Shown("set", SetBody, set_update, show_set),
    "/sequences/": Shown("sequence", SequenceBody, sequence_update, show_sequence),
}


class DataTypeHandlers:
    """The public face of one data type. Reads share `capacity` with those of plain values."""

    def __init__(self, driver: LeaderlessDriver, capacity: Capacity, prefix: str) -> None:
        self._driver = driver
        self._capacity = capacity
        self._prefix, self._face = prefix, FACES[prefix]
        self._sizes = Sizes(driver.core)

    def add_routes(self, app: App) -> None:
        """Serve what is below the prefix."""
        app.add("GET", self._prefix, self.get)
        app.add("POST", self._prefix, self.post)

    async def get(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Read it. 404: nobody has updated it yet, as far as the replicas that answered know."""
        refuse(request, "If-Match", "If-None-Match", "Idempotency-Key")
        key, quorum = self._key(context), self._sizes.asked(context.query)
        deadline = deadline_of(request, context)
        name = key_for(self._face.kind, key)
        async with self._capacity:
            state: Siblings = await self._driver.read(name, quorum=quorum, deadline=deadline)
        if state.data is None:
            raise NotFound(f"the store has no such {self._face.kind}", key=key)
        return self._answer(context, key, state)

    async def post(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Update it; answers with its value here after that."""
        refuse(request, "If-Match", "If-None-Match")
        key, quorum = self._key(context), self._sizes.asked(context.query)
        deadline = deadline_of(request, context)
        name = idempotency_key_of(single_header(request, "Idempotency-Key"))
        body = await read_json_body(request, self._face.body, deadline=deadline)
        update, typed = self._face.update(body, name), key_for(self._face.kind, key)
        known: Siblings | None = None
        if isinstance(update, Remove | Delete):
            # It takes away what was seen, and this node may have missed what its client has seen.
            known = await self._driver.read(typed, quorum=quorum, deadline=deadline)
        state = await self._driver.update(
            typed, update, quorum=quorum, known=known, deadline=deadline
        )
        return self._answer(context, key, state)

    def _key(self, context: Context) -> str:
        return key_of(context.path[len(self._prefix) :])

    def _answer(self, context: Context, key: str, state: Siblings) -> web.Response:
        assert state.data is not None, state
        return json_response({"key": key, **self._face.show(state.data), **known(context, state)})


def add_faces(driver: LeaderlessDriver, capacity: Capacity, app: App) -> None:
    """Serve keys, and beside them the data types."""
    LeaderlessHandlers(driver, capacity).add_routes(app)
    for prefix in FACES:
        DataTypeHandlers(driver, capacity, prefix).add_routes(app)
