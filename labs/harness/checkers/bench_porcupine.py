"""The other side of the benchmark: porcupine, fetched by Go's own client, run on the same data.

Nothing of porcupine is in this repository: a small program of ours (below) is built in a temporary
directory against the module that the Go module proxy serves. Reading the file is not timed, on
either side; the time is that of the check alone, the least of several runs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labs.harness.checkers.result import freeze
from labs.harness.history import History, Op

VERSION = "v1.3.1"
_READ, _WRITE, _CAS, _FAILED_CAS, _APPEND = range(5)

PROGRAM = r"""
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/anishathalye/porcupine"
)

// One operation: [client, key, kind, a, b, call, return, unknown]
type in struct{ kind, a, b, key int; text string }
type out struct{ a int; ok, unknown bool; text string }

func partition(history []porcupine.Operation) [][]porcupine.Operation {
	at := map[int]int{}
	parts := [][]porcupine.Operation{}
	for _, op := range history {
		key := op.Input.(in).key
		i, ok := at[key]
		if !ok {
			i = len(parts)
			at[key] = i
			parts = append(parts, nil)
		}
		parts[i] = append(parts[i], op)
	}
	return parts
}

var register = porcupine.Model{
	Partition: partition,
	Init:      func() interface{} { return 0 },
	Step: func(state, input, output interface{}) (bool, interface{}) {
		s, i, o := state.(int), input.(in), output.(out)
		switch i.kind {
		case 0:
			return o.unknown || o.a == s, s
		case 1:
			return true, i.a
		case 2:
			if o.unknown {
				if i.a == s {
					return true, i.b
				}
				return true, s
			}
			return i.a == s, i.b
		}
		return i.a != s, s
	},
}

var keyvalue = porcupine.Model{
	Partition: partition,
	Init:      func() interface{} { return "" },
	Step: func(state, input, output interface{}) (bool, interface{}) {
		s, i, o := state.(string), input.(in), output.(out)
		switch i.kind {
		case 0:
			return o.text == s, s
		case 1:
			return true, i.text
		}
		return true, s + i.text
	},
}

func load(path string) ([]porcupine.Operation, bool) {
	file, err := os.Open(path)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	scanner := bufio.NewScanner(file)
	scanner.Buffer(make([]byte, 1<<20), 1<<28)
	ops := []porcupine.Operation{}
	texts := false
	for scanner.Scan() {
		var row []interface{}
		if err := json.Unmarshal(scanner.Bytes(), &row); err != nil {
			panic(err)
		}
		number := func(i int) int { return int(row[i].(float64)) }
		i := in{kind: number(2), key: number(1)}
		o := out{ok: true, unknown: number(7) == 1}
		if text, ok := row[3].(string); ok {
			texts = true
			i.text, o.text = text, text
		} else {
			i.a, i.b, o.a = number(3), number(4), number(3)
		}
		ops = append(ops, porcupine.Operation{ClientId: number(0), Input: i, Output: o,
			Call: int64(row[5].(float64)), Return: int64(row[6].(float64))})
	}
	return ops, texts
}

func main() {
	timeout, _ := time.ParseDuration(os.Args[1])
	runs, _ := strconv.Atoi(os.Args[2])
	histories := [][]porcupine.Operation{}
	model := register
	for _, path := range os.Args[3:] {
		ops, texts := load(path)
		if texts {
			model = keyvalue
		}
		histories = append(histories, ops)
	}
	best := time.Duration(1<<62)
	verdicts := make([]porcupine.CheckResult, len(histories))
	begin := time.Now()
	for run := 0; run < runs || (run < 200 && time.Since(begin) < 500*time.Millisecond); run++ {
		start := time.Now()
		for n, ops := range histories {
			verdicts[n] = porcupine.CheckOperationsTimeout(model, ops, timeout)
		}
		if took := time.Since(start); took < best {
			best = took
		}
	}
	fmt.Println(best.Nanoseconds())
	for _, verdict := range verdicts {
		fmt.Println(verdict)
	}
}
"""


@dataclass(slots=True)
class Measured:
    """Porcupine's least time over the runs, and its verdicts ("Ok", "Illegal", "Unknown")."""

    seconds: float
    verdicts: list[str]


class Porcupine:
    """A built program in a temporary directory; a context manager."""

    def __init__(self) -> None:
        self.why_absent = ""
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._program = Path()

    def __enter__(self) -> Porcupine:
        go = shutil.which("go")
        if go is None:
            self.why_absent = "Go is not on this machine"
            return self
        self._directory = tempfile.TemporaryDirectory(prefix="faultline-bench-")
        place = Path(self._directory.name)
        (place / "main.go").write_text(PROGRAM)
        module = f"github.com/anishathalye/porcupine@{VERSION}"
        commands = (["mod", "init", "bench"], ["get", module], ["build", "-o", "bench", "."])
        for command in commands:
            try:
                done = subprocess.run(
                    [go, *command], cwd=place, capture_output=True, text=True, timeout=300
                )
            except subprocess.TimeoutExpired:
                self.why_absent = f"go {command[0]} took over 300 s"
                return self
            if done.returncode:
                self.why_absent = f"go {' '.join(command)}: {done.stderr.strip()[-300:]}"
                return self
        self._program = place / "bench"
        return self

    def __exit__(self, *_: object) -> None:
        if self._directory is not None:
            self._directory.cleanup()

    def measure(self, histories: list[History], *, runs: int, timeout_s: float) -> Measured | None:
        """Check all histories one after the other; None when porcupine is not here."""
        if self.why_absent or self._directory is None:
            return None
        paths = []
        for number, history in enumerate(histories):
            path = Path(self._directory.name) / f"history-{number}.jsonl"
            path.write_text("".join(f"{json.dumps(row)}\n" for row in _rows(history)))
            paths.append(str(path))
        command = [str(self._program), f"{timeout_s}s", str(runs), *paths]
        limit_s = timeout_s * len(histories) * runs + 120
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
        for path in map(Path, paths):
            path.unlink()
        if done.returncode:  # out of memory, for one
            return Measured(float("inf"), [f"failed: {done.stderr.strip()[:80]}"])
        took, *verdicts = done.stdout.split()
        return Measured(int(took) / 1e9, verdicts)


def _rows(history: History) -> list[list[Any]]:
    codes: dict[Any, int] = {None: 0}
    keys: dict[str | None, int] = {}
    text = any(op.f == "append" for op in history.ops)
    # Porcupine has no pending operations: they return after everything else.
    last = max((op.return_ns or op.invoke_ns for op in history.ops), default=0) + 1

    def code(value: Any) -> int:
        return codes.setdefault(freeze(value), len(codes))

    rows: list[list[Any]] = []
    for op in history.ops:
        key = keys.setdefault(op.key, len(keys))
        row = _operation(op, code, text)
        if row is not None:
            end = last if op.return_ns is None else op.return_ns
            rows.append([op.process, key, *row, op.invoke_ns, end, int(op.type == "info")])
    return rows


def _operation(op: Op, code: Any, text: bool) -> list[Any] | None:
    if op.type == "fail":
        return [_FAILED_CAS, code(op.value[0]), 0] if op.extra.get("mismatch") else None
    if op.f == "read":
        if op.type == "info":
            return None
        return [_READ, op.output if text else code(op.output), 0]
    if op.f == "cas":
        return [_CAS, code(op.value[0]), code(op.value[1])]
    kind = _APPEND if op.f == "append" else _WRITE
    return [kind, op.value if text else code(op.value), 0]
