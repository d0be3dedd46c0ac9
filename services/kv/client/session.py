"""A session: what its reads and writes have seen goes with it to whichever node it asks next."""

from __future__ import annotations

from typing import Any

from services.chassis.errors import ServiceError
from services.kv.client import SESSION_TOKEN, KvClient, Reply


class KvSession:
    """One session at a store: what it has seen goes with it, whichever node it asks.

    Not to be used by two tasks at a time: operations of a session have an order. After an
    indefinite error of a write a new session is to be begun: this one's token does not know of it.

    Args:
        read, write: the levels that its operations ask for; `write` None: the store's own.
        token: what an earlier session has seen.
    """

    def __init__(
        self, client: KvClient, *, read: str, write: str | None = None, token: str = ""
    ) -> None:
        self.client, self.read, self.write, self.token = client, read, write, token

    async def get(self, key: str, **how: Any) -> Reply:
        """As `KvClient.get`, at this session's level."""
        return await self._seen(self.client.get, key, consistency=self.read, **how)

    async def put(self, key: str, value: Any, **how: Any) -> Reply:
        """As `KvClient.put`, at this session's level."""
        return await self._seen(self.client.put, key, value, consistency=self.write, **how)

    async def _seen(self, call: Any, *what: Any, **how: Any) -> Reply:
        # Empty, too: it begins a session, and asks for a token whatever the operation's level.
        how["headers"] = {**(how.get("headers") or {}), SESSION_TOKEN: self.token}
        try:
            reply: Reply = await call(*what, **how)
        except ServiceError as error:
            # To find nothing is to have seen something, too.
            self.token = str(error.members.get("session_token", self.token))
            raise
        self.token = reply.session_token or self.token
        return reply
