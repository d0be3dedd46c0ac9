"""The replicated state machine of the store: keys to values, and replies by idempotency key.

Pure and deterministic: nodes that apply the same log hold the same state. What is decided (does
the condition hold? was this key used before?) is decided here, when the entry is applied, and not
in the request handler: between the handler's look and the entry's turn in the log another write
may come, and two clients would both succeed in the same compare-and-set.

Values are kept as the JSON bytes they will be answered with.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal, NamedTuple

import msgspec

from services.protocols.sessions import KeyReused, SessionTable

SESSIONS = 20_000  # idempotency keys remembered: seconds of full load, hours of a patient client

Outcome = Literal["ok", "not_found", "precondition_failed", "key_reused", "bad_command"]


class Command(msgspec.Struct, array_like=True, frozen=True):
    """A write as it stands in the log.

    `value`: JSON bytes; None deletes. `if_match`: the version that must be current, or -1 for any
    (If-Match: *). `if_none_match`: the key must be absent.
    """

    key: str
    value: bytes | None
    if_match: int | None = None
    if_none_match: bool = False
    idempotency_key: str | None = None


class Reply(NamedTuple):
    """What became of a command. `version` is that of the write, or the current one (None: no such
    key) when the precondition failed; `value` is the current value then."""

    outcome: Outcome
    version: int | None
    value: bytes | None = None


class _Image(msgspec.Struct, array_like=True):
    items: list[tuple[str, bytes, int]]
    sessions: list[Any]


_encode = msgspec.msgpack.Encoder().encode
_decode_command = msgspec.msgpack.Decoder(Command).decode
_decode_image = msgspec.msgpack.Decoder(_Image).decode


def _digest(key: str, value: bytes, version: int) -> int:
    """Of one item. The lengths come first: no two items may be made of the same bytes."""
    name = key.encode()
    data = b"%d %d %d %b%b" % (version, len(name), len(value), name, value)
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())


def encode_command(command: Command) -> bytes:
    """The bytes for the log."""
    return _encode(command)


class KeyValueStore:
    """`apply`, `snapshot`, `restore` for the driver; `get` for reads."""

    def __init__(self, sessions: int = SESSIONS) -> None:
        self._items: dict[str, tuple[bytes, int]] = {}
        self._digest = 0
        self._sessions = SessionTable(sessions)
        self._initial = self.snapshot()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: str) -> tuple[bytes, int] | None:
        """The value (JSON bytes) and its version, or None."""
        return self._items.get(key)

    def apply(self, index: int, command: bytes) -> Reply:
        """Carry out an encoded `Command` as version `index`."""
        try:
            decoded = _decode_command(command)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            # Every node must come to the same end; to raise would stop them all, for good.
            return Reply("bad_command", None)
        if decoded.idempotency_key is None:
            return self._carry_out(index, decoded)
        fingerprint = hashlib.blake2b(command, digest_size=16).hexdigest()
        try:
            known = self._sessions.lookup(decoded.idempotency_key, fingerprint)
        except KeyReused:
            return Reply("key_reused", None)
        if known is not None:
            return Reply(*known)
        reply = self._carry_out(index, decoded)
        self._sessions.record(decoded.idempotency_key, fingerprint, list(reply))
        return reply

    def _carry_out(self, index: int, command: Command) -> Reply:
        value, version = self._items.get(command.key, (None, None))
        wanted = command.if_match
        if (
            (wanted is not None and version is None)
            or (wanted is not None and wanted != -1 and wanted != version)
            or (command.if_none_match and version is not None)
        ):
            return Reply("precondition_failed", version, value)
        if command.value is not None:
            self._items[command.key] = (command.value, index)
            self._digest ^= _digest(command.key, command.value, index)
        elif version is None:
            return Reply("not_found", None)
        else:
            del self._items[command.key]
        if value is not None and version is not None:
            self._digest ^= _digest(command.key, value, version)
        return Reply("ok", index)

    def digest(self) -> str:
        """16 hexadecimal digits, the same for the same keys, values and versions.

        Kept up with every write, so that to compare replicas costs nothing, however much they hold.
        """
        return f"{self._digest:016x}"

    def snapshot(self) -> bytes:
        """The whole state; equal states give equal bytes, whatever way led to them."""
        items = [(key, *item) for key, item in sorted(self._items.items())]
        return _encode(_Image(items, self._sessions.to_plain()))

    def restore(self, data: bytes) -> None:
        """Become the state of a snapshot; of no bytes at all, the initial state.

        A primary that is deposed before its first snapshot goes back to the beginning.
        """
        image = _decode_image(data or self._initial)
        self._items = {key: (value, version) for key, value, version in image.items}
        self._digest = 0
        for item in image.items:
            self._digest ^= _digest(*item)
        self._sessions = SessionTable.from_plain(image.sessions)
