"""A resource that several may write to, guarded by a fence: `GET` and `PUT /value`.

Each write carries the writer's *fencing token* (the number of the lease it acts under). With
`RESOURCE_FENCING=on` a write whose token is lower than one admitted before is refused: the writer
has been deposed, and may be the last to know. With `off` everything is taken, as by a disk, a
printer or an API that has never heard of tokens.

What is accepted is on stable storage before it is answered, the greatest token with it: a fence
that forgot at a restart would be open to every former holder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from services.chassis import service
from services.chassis.app import Context, deadline_of, json_response, read_json_body
from services.chassis.codec import Codec
from services.chassis.config import ServiceConfig, choice, load, switch
from services.chassis.errors import BadRequest, InternalError, NotFound, StaleToken, TooLarge
from services.chassis.machine import Machine
from services.chassis.node import EXIT_STORAGE
from services.chassis.storage import Storage, StorageError
from services.protocols.core import Snapshot
from services.protocols.lease import Fence

TOKEN_MAX = (1 << 63) - 1
VALUE_BYTES_MAX = 64 << 10
WRITES_PER_SNAPSHOT = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceConfig(ServiceConfig):
    """What a resource needs to know."""

    data_dir: Path
    fencing: bool = True
    fsync: str = "always"


@dataclass(slots=True)
class Accepted:
    """The `position`-th write that was accepted (from 1), with its token; `value` is JSON."""

    position: int
    token: int
    value: bytes


class PutBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a PUT."""

    value: Any
    token: int


class Resource(service.Service):
    """One value, the last one that was accepted. Raises StorageError when its data are damaged."""

    def __init__(self, config: ResourceConfig, machine: Machine) -> None:
        super().__init__(config, machine)
        self.fencing = config.fencing
        self.storage = Storage(
            config.data_dir, Codec({Accepted, Snapshot}), machine.files(config.fsync)
        )
        self.last = Accepted(0, 0, b"null")
        self.fence = Fence()
        for record in self.storage.take_records():
            if isinstance(record, Snapshot):
                self.fence.newest = record.last_term
            else:
                self._accept(record)
        self.app.add("GET", "/value", self.get)
        self.app.add("PUT", "/value", self.put)

    async def get(self, _: web.BaseRequest, __: Context) -> web.Response:
        """The value, its token, and how many writes were accepted to come to it."""
        if not self.last.position:
            raise NotFound("nothing was written yet")
        return json_response({"value": msgspec.Raw(self.last.value), **self._place()})

    async def put(self, request: web.BaseRequest, context: Context) -> web.Response:
        """Write the value, unless the token is stale."""
        deadline = deadline_of(request, context)
        body: PutBody = await read_json_body(request, PutBody, deadline=deadline)
        if not 1 <= body.token <= TOKEN_MAX:
            raise BadRequest(f"a token is a whole number from 1 to {TOKEN_MAX}, not {body.token}")
        value = msgspec.json.encode(body.value)
        if len(value) > VALUE_BYTES_MAX:
            raise TooLarge(f"a value has at most {VALUE_BYTES_MAX} bytes as JSON, not {len(value)}")
        context.fields["token"] = body.token
        if self.fencing and not self.fence.admits(body.token):
            newest = self.fence.newest
            raise StaleToken(f"{body.token} is older than {newest}, admitted since", newest=newest)
        accepted = Accepted(self.last.position + 1, body.token, value)
        self._persist(accepted)
        self._accept(accepted)
        context.fields["position"] = accepted.position
        return json_response(self._place())

    def _persist(self, accepted: Accepted) -> None:
        records: list[Any] = [accepted]
        if accepted.position % WRITES_PER_SNAPSHOT == 0:
            # The last value alone counts, and the greatest token: what came before may go.
            records = [Snapshot(accepted.position, self.fence.newest, b""), accepted]
        try:
            self.storage.append(records)
        except StorageError as exc:
            self.fail(exc, EXIT_STORAGE)
            raise InternalError("the storage failed; nobody knows whether it was written") from exc

    def _accept(self, accepted: Accepted) -> None:
        self.fence.admit(accepted.token)
        self.last = accepted

    def _place(self) -> dict[str, Any]:
        return {"token": self.last.token, "position": self.last.position}

    def details(self) -> dict[str, Any]:
        return {
            "role": "resource",
            "fencing": self.fencing,
            "newest_token": self.fence.newest,
            "writes": self.last.position,
        }

    def not_ready(self) -> str | None:
        return None if self.storage.usable else "the storage is not usable"

    def closed(self) -> None:
        self.storage.close()


def make(environ: Mapping[str, str], machine: Machine) -> Resource:
    """A resource, configured by RESOURCE_* in the environment. Raises ConfigError, StartError."""
    parsers = {"fencing": switch, "fsync": choice("always", "never")}
    config = load(ResourceConfig, environ, "RESOURCE_", parsers)
    try:
        return Resource(config, machine)
    except StorageError as exc:
        raise service.StartError(f"{config.node}: {exc}", EXIT_STORAGE) from exc


async def serve(environ: Mapping[str, str], machine: Machine) -> int:
    """Run a resource on `machine` until it is told to stop; returns the exit code."""
    return await service.serve(make, environ, machine)


def main(environ: Mapping[str, str]) -> int:
    """Run a resource as a process of its own; returns the exit code."""
    return service.run_process(make, environ)
