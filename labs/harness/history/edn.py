"""A strict reader and a writer for EDN, the notation of Jepsen's histories.

Own code because the one package on PyPI, `edn_format` 0.8.0, tells no line of an element, needs the
abandoned `ply` and takes 1.7 to 3 times as long on Jepsen's files. Ours covers what EDN specifies
(edn-format.org) except characters with names beyond the five standard ones. Tagged elements
(`#jepsen.history.Op{…}`, `#inst "…"`) read as the element that is tagged.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

_TOKEN: Final = re.compile(
    r"""(?P<space>[\s,]+|;[^\n]*)
      | (?P<open>\#\{|[\[({])
      | (?P<close>[\])}])
      | (?P<discard>\#_)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<character>\\(?:newline|space|tab|return|formfeed|u[0-9a-fA-F]{4}|\S))
      | (?P<tag>\#[A-Za-z][^\s,\[\](){}"]*)
      | (?P<word>[^\s,\[\](){}";\#\\]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_INTEGER: Final = re.compile(r"[+-]?\d+N?")
_FLOAT: Final = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?M?")
_RATIO: Final = re.compile(r"[+-]?\d+/\d+")
_SYMBOL: Final = re.compile(r"[^\d].*|[+-]|[+-][^\d].*", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "b": "\b", "f": "\f"}
_CHARACTERS: Final = {"newline": "\n", "space": " ", "tab": "\t", "return": "\r", "formfeed": "\f"}
_CLOSES: Final = {"[": "]", "(": ")", "{": "}", "#{": "}"}
MAX_DEPTH: Final = 200


class EdnError(ValueError):
    """Not EDN; `offset` says where."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True, repr=False)
class Keyword:
    """`:name`; not equal to the string."""

    name: str

    def __repr__(self) -> str:
        return f":{self.name}"


@dataclass(frozen=True, slots=True)
class Symbol:
    """A bare word."""

    name: str


@dataclass(slots=True)
class _Frame:
    opening: str
    offset: int
    items: list[Any]
    tags: int = 0
    discards: int = 0


class Lines:
    """From offsets to line numbers."""

    def __init__(self, text: str) -> None:
        self._starts = [match.end() for match in re.finditer("\n", text)]

    def at(self, offset: int) -> int:
        """The line (from 1) that contains `offset`."""
        return bisect_right(self._starts, offset) + 1


def forms(text: str) -> Iterator[tuple[int, Any]]:
    """The top-level elements with their offsets; those inside it if all is in one vector.

    Raises:
        EdnError: the text is not EDN, or ends too soon.
    """
    found = list(_read(text))
    if len(found) == 1 and isinstance(found[0][1], _Vector):
        vector = found[0][1]
        yield from zip(vector.offsets, vector, strict=True)
    else:
        yield from found


class _Vector(list[Any]):
    """A top-level vector that remembers where its elements began."""

    offsets: list[int]


def _read(text: str) -> Iterator[tuple[int, Any]]:
    top: list[tuple[int, Any]] = []
    offsets: list[int] = []  # of the elements of the outermost collection
    stack: list[_Frame] = [_Frame("", 0, [])]
    keywords: dict[str, Keyword] = {}
    position, end = 0, len(text)
    match_at = _TOKEN.match
    while position < end:
        match = match_at(text, position)
        if match is None:
            what = "string without end" if text[position] == '"' else f"{text[position]!r}"
            raise EdnError(f"unexpected {what}", position)
        kind, token, start = match.lastgroup, match.group(), position
        position = match.end()
        frame = stack[-1]
        if kind == "space":
            continue
        value: Any
        if kind == "word":
            value = keywords.get(token)
            if value is None:
                value = _word(token, start)
                if isinstance(value, Keyword):
                    keywords[token] = value
        elif kind == "open":
            if len(stack) > MAX_DEPTH:
                raise EdnError("nested too deeply", start)
            stack.append(_Frame(token, start, []))
            continue
        elif kind == "close":
            if len(stack) == 1 or _CLOSES[frame.opening] != token:
                raise EdnError(f"unexpected {token!r}", start)
            stack.pop()
            value, start = _collection(frame, offsets if len(stack) == 1 else None), frame.offset
            frame = stack[-1]
        elif kind == "string":
            value = _string(token, start)
        elif kind == "character":
            value = _character(token)
        else:
            frame.tags += kind == "tag"
            frame.discards += kind == "discard"
            continue
        frame.tags = 0
        if frame.discards:
            frame.discards -= 1
            continue
        if len(stack) == 1:
            top.append((start, value))
            offsets = []
            continue
        if len(stack) == 2:
            offsets.append(start)
        frame.items.append(value)
    if len(stack) > 1:
        raise EdnError(f"truncated: {stack[-1].opening!r} is not closed", stack[-1].offset)
    if stack[0].tags or stack[0].discards:
        raise EdnError("truncated: nothing follows a tag", end)
    yield from top


def _collection(frame: _Frame, offsets: list[int] | None) -> Any:
    if frame.tags or frame.discards:
        raise EdnError("nothing follows a tag", frame.offset)
    items = frame.items
    if frame.opening == "{":
        if len(items) % 2:
            raise EdnError("a map with a key that has no value", frame.offset)
        try:
            made = dict(zip(items[::2], items[1::2], strict=True))
        except TypeError:
            raise EdnError("a map with a collection as a key", frame.offset) from None
        if len(made) * 2 != len(items):
            raise EdnError("a map with a key twice", frame.offset)
        return made
    if frame.opening == "#{":
        try:
            unique = frozenset(items)
        except TypeError:
            return items
        if len(unique) != len(items):
            raise EdnError("a set with an element twice", frame.offset)
        return unique
    if offsets is not None and frame.opening == "[":
        vector = _Vector(items)
        vector.offsets = list(offsets)
        return vector
    return items


def _word(token: str, offset: int) -> Any:
    if token[0] == ":":
        if len(token) < 2 or token[1] == ":":
            raise EdnError(f"not a keyword: {token!r}", offset)
        return Keyword(token[1:])
    if token in ("nil", "true", "false"):
        return {"nil": None, "true": True, "false": False}[token]
    if _INTEGER.fullmatch(token):
        return int(token.rstrip("N"))
    if _FLOAT.fullmatch(token):
        return float(token.rstrip("M"))
    if _RATIO.fullmatch(token):
        top, bottom = token.split("/")
        if int(bottom) == 0:
            raise EdnError(f"not a number: {token!r}", offset)
        return Fraction(int(top), int(bottom))
    if not _SYMBOL.fullmatch(token):
        raise EdnError(f"not a number: {token!r}", offset)
    return Symbol(token)


def _string(token: str, offset: int) -> str:
    if "\\" not in token:
        return token[1:-1]

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name[0] == "u" and len(name) == 5:
            return chr(int(name[1:], 16))
        if name not in _ESCAPES:
            raise EdnError(f"unknown escape \\{name}", offset)
        return _ESCAPES[name]

    return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", replace, token[1:-1], flags=re.DOTALL)


def _character(token: str) -> str:
    name = token[1:]
    if len(name) == 5 and name[0] == "u":
        return chr(int(name[1:], 16))
    return _CHARACTERS.get(name, name)


def write(value: Any) -> str:
    """One value as EDN. Keys of objects that are plain names become keywords."""
    if value is None or isinstance(value, bool):
        return {None: "nil", True: "true", False: "false"}[value]
    if isinstance(value, (int, float, Keyword)):
        return str(value)
    if isinstance(value, Symbol):
        return value.name
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, dict):
        pairs = (f"{_key(name)} {write(item)}" for name, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (set, frozenset)):
        return "#{" + " ".join(sorted(map(write, value))) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(map(write, value)) + "]"
    raise TypeError(f"no EDN for {type(value).__name__}")


def _key(name: Any) -> str:
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z_][\w.?-]*", name):
        return f":{name}"
    return write(name)
