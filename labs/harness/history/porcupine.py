"""The two kinds of logs that porcupine (Go) tests itself with.

- etcd logs of Jepsen: `INFO  jepsen.util - PROCESS :TYPE :F VALUE`, one register, no times. The
  order of the lines is the time. A *failed* cas observed a value other than `from`; a read that
  timed out says nothing; `:info` is pending.
- key-value logs: one map per line, `:get`, `:put`, `:append` on strings, no times.
"""

from __future__ import annotations

import re
from pathlib import Path

from labs.harness.history.edn import EdnError, Keyword, forms
from labs.harness.history.events import Event, Pairing
from labs.harness.history.op import History

_LINE = re.compile(
    r"INFO +jepsen\.util - (\d+)\s+:(invoke|ok|fail|info)\s+:(read|write|cas)\s+"
    r"(nil|\d+|\[\d+ \d+\]|:timed-out)\s*"
)
_NAMES = {"get": "read", "put": "write", "append": "append"}


def load_porcupine(path: Path | str) -> History:
    """Read either kind; the first line tells which.

    Raises:
        HistoryError: on the first malformed line, with file and line.
        OSError: the file cannot be read.
    """
    pairing = Pairing(str(path))
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise pairing.error(1, f"not UTF-8: {error.reason}") from None
    lines = text.splitlines()
    if lines and lines[0].lstrip().startswith("{"):
        _key_value(pairing, lines)
    else:
        _etcd(pairing, lines)
    return pairing.history()


def _etcd(pairing: Pairing, lines: list[str]) -> None:
    arguments: dict[int, object] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise pairing.error(number, f"not a line of a jepsen log: {line[:60]!r}")
        process, kind, f, text = int(match[1]), match[2], match[3], match[4]
        value: object = None
        if text[0] == "[":
            value = [int(part) for part in text[1:-1].split()]
        elif text[0].isdigit():
            value = int(text)
        error = "timed out" if text == ":timed-out" else None
        if kind == "invoke":
            if error or (f == "cas") != isinstance(value, list) or (f == "write" and value is None):
                raise pairing.error(number, f"{f} of {text}")
            arguments[process] = value
        elif error:
            value = arguments.get(process)
        elif f in ("write", "cas") and value != arguments.get(process, value):
            raise pairing.error(number, f"{f} completes with {text}, not with its argument")
        extra = {"mismatch": True} if (kind, f) == ("fail", "cas") and not error else {}
        pairing.add(Event(number, number - 1, number, process, kind, f, None, value, error, extra))


def _key_value(pairing: Pairing, lines: list[str]) -> None:
    for number, line in enumerate(lines, 1):
        try:
            found = list(forms(line))
        except EdnError as error:
            raise pairing.error(number, f"not a map: {error}") from None
        if len(found) != 1 or not isinstance(found[0][1], dict):
            raise pairing.error(number, "not one map")
        fields = {name.name: item for name, item in found[0][1].items() if type(name) is Keyword}
        process, key, value = fields.get("process"), fields.get("key"), fields.get("value")
        words = (fields.get("type"), fields.get("f"))
        names = [word.name if type(word) is Keyword else "" for word in words]
        if type(process) is not int or not isinstance(key, str):
            raise pairing.error(number, f"process {process!r} and key {key!r}")
        if names[0] not in ("invoke", "ok", "fail", "info") or names[1] not in _NAMES:
            raise pairing.error(number, f"type {names[0]!r} and f {names[1]!r}")
        f = _NAMES[names[1]]
        absent = value is None and f == "read" and names[0] != "ok"
        if not absent and not isinstance(value, str):
            raise pairing.error(number, f"value is {value!r}, not a string")
        pairing.add(Event(number, number - 1, number, process, names[0], f, key, value))
