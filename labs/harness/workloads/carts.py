"""Shoppers with shared carts: one deed, done in the way that each kind of store asks for.

A cart holds items, and every item is one of its own. To put one in, a shopper

- of plain values reads the cart, merges the siblings that it is given, and writes it back with the
  item and the context of what it has read. (Where the last write wins it is given one value and the
  context is not heeded: the same shopper, another setting of the store.)
- of data types says "add", and counts the item in a counter that all share;
- of compare-and-set writes what it believes to be in the cart, on condition that the cart is as it
  has last seen it. Refused, it is told what is there now, and tries again with that.

What they did stands in the history: `add` (an item to a cart), `look` (at all carts), `write` and
`read` (of a key that holds one value), `increment`, `repeat` and `count` (of the counter).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from labs.harness.workloads.tracing import new_trace
from services.chassis.errors import Definite, Indefinite, NotFound, PreconditionFailed
from services.kv.client import KvClient

if TYPE_CHECKING:
    from labs.harness.lab.stage import Stage

PATIENT_MS = 10_000  # who can be answered is, however busy the machine
TRIES = 5  # with one item; who is refused knows the newest, and there are two shoppers
COUNTER = "items"
How = dict[str, Any]  # node, headers and deadline of a request


class Seen(NamedTuple):
    """A cart as it was read. `token` names this state to the store."""

    items: Sequence[Any] = ()
    token: Any = None
    siblings: int = 0


class Shopper:
    """Of plain values; stands at `place`, beside `node`. To be closed."""

    def __init__(self, stage: Stage, place: str, node: str) -> None:
        addresses = {other: stage.cluster.address(place, other) for other in stage.cluster.nodes}
        self.client = KvClient(addresses, random=Random(f"{stage.seed} {place}"))
        self.place, self.node = place, node
        self.deadline_ms = PATIENT_MS
        self._recorder = stage.recorder
        self._processes: dict[str, int] = {}

    async def put_in(self, items: dict[str, int]) -> None:
        """Put an item into each of these carts, all at the same time."""
        await asyncio.gather(*(self._put_in(cart, item) for cart, item in items.items()))

    async def look(self, carts: Sequence[str]) -> None:
        """Read all carts as all replicas know them: one operation, of all their items."""

        async def read(how: How) -> How:
            found = await asyncio.gather(*(self.seen(cart, "all", how) for cart in carts))
            items = sorted(item for each in found for item in each.items)
            return {"value": items, "siblings": max(each.siblings for each in found)}

        await self._record("look", "carts", None, read)

    async def write(self, key: str, value: int, node: str) -> None:
        """Make `value` the only one at `node`, in the place of what it shows."""

        async def change(how: How) -> How:
            await self.change(key, await self.seen(key, "eventual", how), [value], how)
            return {}

        await self._record("write", key, value, change, node=node)

    async def read(self, key: str, node: str) -> None:
        """The value, as all replicas know it; None where it is absent, a list of several."""

        async def read(how: How) -> How:
            items = (await self.seen(key, "all", how)).items
            return {"value": items[0] if len(items) == 1 else list(items) or None}

        await self._record("read", key, None, read, node=node)

    async def shows(self, key: str, value: int, node: str) -> bool:
        """Is `value` what `node` shows by itself? (Only to wait for: it is not in the history.)"""
        how = {"node": node, "deadline_ms": self.deadline_ms}
        return list((await self.seen(key, "eventual", how)).items) == [value]

    # ------------------------------------------------------------------ its own way

    async def seen(self, cart: str, consistency: str, how: How) -> Seen:
        try:
            reply = await self.client.get(cart, consistency=consistency, **how)
        except NotFound:
            return Seen()
        items = {item for sibling in reply.siblings for item in sibling}
        return Seen(sorted(items), reply.context, len(reply.siblings))

    async def change(self, cart: str, seen: Seen, items: list[Any], how: How) -> None:
        await self.client.put(cart, items, context=seen.token, **how)

    async def _add(self, cart: str, item: int, how: How) -> How:
        seen = await self.seen(cart, "eventual", how)
        await self.change(cart, seen, [*seen.items, item], how)
        return {"siblings": seen.siblings}

    async def _put_in(self, cart: str, item: int) -> None:
        for _ in range(TRIES):
            done = await self._record("add", cart, item, lambda how: self._add(cart, item, how))
            if not isinstance(done, PreconditionFailed):
                return

    # ------------------------------------------------------------------ for the history

    async def _record(
        self, f: str, key: str, value: Any, act: Callable[[How], Awaitable[How]], *,
        node: str | None = None, lane: str | None = None,
    ) -> Any:  # fmt: skip
        """Do it: its value, or its error. `lane`: what is done at the same time has others."""
        trace, lane = new_trace(), lane or key
        if lane not in self._processes:
            self._processes[lane] = self._recorder.new_process()
        handle = self._recorder.invoke(
            self._processes[lane], f, key, value, client=self.place, **trace.fields
        )
        how = {"node": node or self.node, "headers": trace.headers, "deadline_ms": self.deadline_ms}
        try:
            told = {"value": value, **await act(how)}
        except Definite as error:
            newer = {"newer": error.version} if isinstance(error, PreconditionFailed) else {}
            self._recorder.fail(handle, error=str(error), **newer)
            return error
        except Indefinite as error:
            self._recorder.info(handle, error=str(error))
            del self._processes[lane]
            return error
        self._recorder.ok(handle, **told)
        return told["value"]


class DataTypeShopper(Shopper):
    """Says what is to be done, and leaves it to the store to bring it together."""

    def __init__(self, stage: Stage, place: str, node: str) -> None:
        super().__init__(stage, place, node)
        self._names: list[str] = []

    async def seen(self, cart: str, consistency: str, how: How) -> Seen:
        try:
            reply = await self.client.read_data("sets", cart, consistency=consistency, **how)
        except NotFound:
            return Seen()
        return Seen(reply.value, None, 1)

    async def change(self, cart: str, seen: Seen, items: list[Any], how: How) -> None:
        for update in ("remove", "add"):
            old, new = (seen.items, items) if update == "remove" else (items, seen.items)
            for item in old:
                if item not in new:
                    await self.client.update("sets", cart, {update: item}, **how)

    async def _add(self, cart: str, item: int, how: How) -> How:
        await self.client.update("sets", cart, {"add": item}, **how)
        return {}

    async def _put_in(self, cart: str, item: int) -> None:
        await super()._put_in(cart, item)
        done = await self._count("increment", f"item-{item}", self.node, f"{cart} {COUNTER}")
        if not isinstance(done, Definite):
            self._names.append(f"item-{item}")

    async def _count(self, f: str, name: str, node: str, lane: str) -> Any:
        async def count(how: How) -> How:
            await self.client.update("counters", COUNTER, {"increment": 1}, idempotency_key=name,
                                     **how)  # fmt: skip
            return {}

        return await self._record(f, COUNTER, 1, count, node=node, lane=lane)

    async def count_again(self, node: str) -> None:
        """Repeat all increments at another node, as who never had an answer would."""
        for name in self._names:
            await self._count("repeat", name, node, COUNTER)

    async def look(self, carts: Sequence[str]) -> None:
        await super().look(carts)

        async def read(how: How) -> How:
            reply = await self.client.read_data("counters", COUNTER, consistency="all", **how)
            return {"value": reply.value}

        await self._record("count", COUNTER, None, read)


class ConditionalShopper(Shopper):
    """Writes on condition, to whoever leads; `_screen` is what it has seen last."""

    def __init__(self, stage: Stage, place: str, node: str) -> None:
        super().__init__(stage, place, node)
        self._screen: dict[str, Seen] = {}

    async def seen(self, cart: str, consistency: str, how: How) -> Seen:
        try:
            reply = await self.client.get(cart, **{**how, "node": None})
            self._screen[cart] = Seen(reply.value, reply.version, 1)
        except NotFound:
            self._screen[cart] = Seen()
        return self._screen[cart]

    async def change(self, cart: str, seen: Seen, items: list[Any], how: How) -> None:
        how = {**how, "node": None}
        try:
            reply = await self.client.cas(cart, items, version=seen.token, **how)
        except PreconditionFailed as refused:
            self._screen[cart] = Seen(refused.value or [], refused.version, 1)
            raise
        self._screen[cart] = Seen(items, reply.version, 1)

    async def _add(self, cart: str, item: int, how: How) -> How:
        seen = self._screen.get(cart, Seen())
        await self.change(cart, seen, [*seen.items, item], how)
        return {}
