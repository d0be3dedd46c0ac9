"""The zygote: a small fork server, and the reaper of all that it started.

It imports the heavy modules once and then forks one process per node: 25 nodes are up in the time
that two would need to import the same (measured: PERFORMANCE.md, "Start-up"). It has one thread and
no event loop, because a fork copies only the calling thread: a lock that another one held at that
moment would stay locked in the child for ever.

The protocol is JSON lines over a socket pair. From the runner:

    {"id": 1, "do": "spawn", "name": "n1", "module": "services.kv", "environment": {…},
     "log": "/…/n1.log", "directory": "/…"}        → {"id": 1, "pid": 4711}
    {"id": 2, "do": "signal", "pid": 4711, "signal": 9}            → {"id": 2, "sent": true}

and of its own accord `{"event": "warm", "seconds": …, "failed": {module: why}}`, `"ending"`, and
for a child `{"event": "exited", "pid", "code"}` (negative: the signal), `"paused"`, `"continued"`:
what `waitpid` says, so that "paused" is the kernel's word and not our hope.

**Nothing outlives the run.** The runner's death, however it died, is the end of file on the socket
pair. The zygote then kills its children (SIGKILL also ends a stopped process), removes the run's
temporary directory and its owner record, and last kills its own process group, which takes with it
whatever the children had started. An orderly end is the same path. Three more cases:

- Ctrl-C goes to the terminal's foreground group. The zygote leads a session of its own, so it
  survives to clean up.
- The zygote itself is killed: on Linux the kernel then kills its children (PR_SET_PDEATHSIG); on
  every system the runner sees the end of file and kills the process group.
- Both are killed: the next run sweeps (`registry.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from labs.harness.testbed import registry
from labs.harness.testbed.registry import OwnedProcess, OwnerRecord

# A look at the world even when no signal came: a lost SIGCHLD, a runner whose end of the socket
# pair lives on in some process that it forked.
LOOK_AROUND_S = 0.25
REAP_WITHIN_S = 5.0
LONGEST_LINE = 1 << 20
PR_SET_PDEATHSIG = 1
END_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the launcher says on the command line, as one JSON object.

    `descriptor` is the zygote's end of the socket pair, `runner` the pid of its parent.
    """

    descriptor: int
    run: str
    runner: int
    modules: list[str]


class Zygote:
    """The parent of a run's processes. Constructing it takes ownership: record and directory."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.control = socket.socket(fileno=settings.descriptor)
        self.control.set_inheritable(False)
        self.children: dict[int, str] = {}
        self._unread = b""
        self._ending = False
        self._wake_in, self._wake_out = socket.socketpair()
        for wake in (self._wake_in, self._wake_out):
            wake.setblocking(False)
        signal.set_wakeup_fd(self._wake_out.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        for number in END_SIGNALS:
            signal.signal(number, self._end)
        self.record = self._take_ownership()

    def _end(self, _number: int, _frame: object) -> None:
        self._ending = True

    def _take_ownership(self) -> OwnerRecord:
        own = os.getpid()
        identities = registry.identify([self.settings.runner, own])
        directory = registry.temporary_directory(self.settings.run)
        record = OwnerRecord(
            run=self.settings.run,
            runner=OwnedProcess(
                self.settings.runner, identities.get(self.settings.runner, "gone"), "runner"
            ),
            group=os.getpgrp(),
            processes=[OwnedProcess(own, identities[own], "zygote")],
            directories=[str(directory)],
        )
        # The record first: a directory that no record names would be nobody's to remove.
        record.save()
        directory.mkdir(mode=0o700)
        return record

    @property
    def abandoned(self) -> bool:
        return self._ending or os.getppid() != self.settings.runner

    def warm(self) -> None:
        """Import what the children need. What fails here fails again, audibly, in its child."""
        started = time.monotonic()
        failed = {}
        for module in self.settings.modules:
            if self.abandoned:
                return
            try:
                importlib.import_module(module)
            except Exception as error:
                traceback.print_exc()
                failed[module] = f"{type(error).__name__}: {error}"
        # What was imported is moved out of the collector's sight: a collection in a child would
        # write to, and so copy, every page that it shares with the zygote.
        gc.collect()
        gc.freeze()
        seconds = round(time.monotonic() - started, 4)
        self._tell({"event": "warm", "seconds": seconds, "failed": failed})

    def serve(self) -> None:
        """Carry out commands until the runner is gone."""
        while not self.abandoned:
            readable, _, _ = select.select([self.control, self._wake_in], [], [], LOOK_AROUND_S)
            if self._wake_in in readable:
                self._wake_in.recv(4096)
            if self.control in readable and not self._receive():
                return
            self._reap()

    def _receive(self) -> bool:
        """Take in commands; False when the runner has hung up."""
        try:
            received = self.control.recv(1 << 16)
        except ConnectionError:
            return False
        *lines, self._unread = (self._unread + received).split(b"\n")
        assert len(self._unread) < LONGEST_LINE, "the runner sends lines"
        answers = [self._carry_out(json.loads(line)) for line in lines]
        if any("pid" in answer for answer in answers):
            self._record_children()
        for answer in answers:
            self._tell(answer)
        return bool(received)

    def _carry_out(self, command: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {"id": command["id"]}
        try:
            if command["do"] == "spawn":
                answer["pid"] = self._spawn(command)
            elif command["do"] == "signal":
                answer["sent"] = self._signal(command["pid"], command["signal"])
            else:
                answer["error"] = f"unknown command {command['do']!r}"
        except OSError as error:
            answer["error"] = str(error)
        return answer

    def _spawn(self, command: dict[str, Any]) -> int:
        if directory := command.get("directory"):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        self._import(command["module"])
        # Opened here, so that an unwritable log is this command's error.
        log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        # Held back until the child has handlers of its own: a SIGTERM that came to the zygote's
        # handler in the child would be swallowed.
        signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
        try:
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                self._become_child(parent, log, command["module"], command["environment"])
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, END_SIGNALS)
            os.close(log)
        self.children[pid] = command["name"]
        return pid

    def _import(self, module: str) -> None:
        """A service that was not among the first to be warmed is imported once, and not by each of
        its nodes at the same time: eight consumers would spend two seconds of two cores on that."""
        if module.startswith("services.") and module not in sys.modules:
            with contextlib.suppress(Exception):  # it fails again, audibly, in its child
                importlib.import_module(module)
                gc.collect()
                gc.freeze()

    def _signal(self, pid: int, number: int) -> bool:
        # Only a child that has not been reaped: until then its pid can't be anybody else's.
        if pid not in self.children:
            return False
        os.kill(pid, number)
        return True

    def _record_children(self) -> None:
        identities = registry.identify(self.children)
        self.record.processes[1:] = [
            OwnedProcess(pid, identities[pid], name)
            for pid, name in self.children.items()
            if pid in identities
        ]
        self.record.save()

    def _reap(self) -> None:
        """Report what became of the children. By pid: `ps` (registry) is a child as well."""
        for pid in list(self.children):
            found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            if not found:
                continue
            if os.WIFSTOPPED(status):
                self._tell({"event": "paused", "pid": pid})
            elif os.WIFCONTINUED(status):
                self._tell({"event": "continued", "pid": pid})
            else:
                del self.children[pid]
                code = os.waitstatus_to_exitcode(status)
                self._tell({"event": "exited", "pid": pid, "code": code})

    def _tell(self, message: dict[str, Any]) -> None:
        # A runner that is gone shows as the end of file on the next turn.
        with contextlib.suppress(ConnectionError):
            self.control.sendall(json.dumps(message).encode() + b"\n")

    def clean_up(self) -> NoReturn:
        """Kill every child, remove what the run owned, and end with the whole process group."""
        # Before the children's exits: the runner must not take these for the nodes' own doing.
        self._tell({"event": "ending"})
        for pid in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + REAP_WITHIN_S
        while self.children and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.001)
        for directory in self.record.directories:
            shutil.rmtree(directory, ignore_errors=True)
        if not any(Path(directory).exists() for directory in self.record.directories):
            registry.record_path(self.record.run).unlink(missing_ok=True)
        os.killpg(os.getpgrp(), signal.SIGKILL)
        os._exit(0)  # not reached: the group holds this process too

    def _become_child(
        self, parent: int, log: int, module: str, environment: dict[str, str]
    ) -> NoReturn:
        """Runs in the child, and never returns: the zygote's loop must not run twice."""
        code = 1
        try:
            _die_with(parent)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, *END_SIGNALS):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, END_SIGNALS)
            for inherited in (self.control, self._wake_in, self._wake_out):
                inherited.close()
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
            os.environ.update(environment)
            gc.enable()
            code = importlib.import_module(module).main(dict(environment))
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 1)


def _die_with(parent: int) -> None:
    """Linux: have the kernel kill this process when the zygote dies. Elsewhere: see `registry`."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def main(arguments: list[str]) -> NoReturn:
    assert os.getpgrp() == os.getpid(), "the zygote ends by killing its group: it must lead its own"
    zygote = Zygote(Settings(**json.loads(arguments[0])))
    gc.disable()
    try:
        if not zygote.abandoned:
            zygote.warm()
            zygote.serve()
    except BaseException:
        traceback.print_exc()
    finally:
        zygote.clean_up()


if __name__ == "__main__":
    main(sys.argv[1:])
