"""What a lab file declares: its question, predictions, variants, the scenario and the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from labs.harness.lab.verdict import Expectation, VariantResult
from labs.harness.testbed.description import ClusterSpec

if TYPE_CHECKING:
    from labs.harness.lab.stage import Stage

Results = dict[str, VariantResult]


@dataclass(frozen=True, slots=True)
class Prediction:
    """A yes-or-no question to answer before the run; `truth` reads the answer off the results."""

    question: str
    truth: Callable[[Results], bool | None]
    because: str


@dataclass(frozen=True, slots=True)
class Variant:
    """One system under the lab's scenario. `cluster(nodes)` describes it for that many nodes.

    `may_stop`: its nodes are wrong on purpose, and one that notices may stop. That is a break, too.
    """

    name: str
    expected: Expectation
    about: str
    cluster: Callable[[int], ClusterSpec]
    may_stop: bool = False
    on: tuple[str, ...] = ()  # substrates, where its cluster is too large for others; none: all


@dataclass(frozen=True, slots=True)
class Lab:
    """One interview question, its experiment and its answer.

    `scenario` runs once per variant, under the same seed, load and fault timetable; `together`,
    once for all of them, each on nodes of its own in one cluster with the same members (brokers
    that take seconds to start), under the very same faults. `answer` and `comparison` get the
    results by variant name and quote figures of this run alone.
    """

    name: str
    questions: tuple[int, ...]
    question: str
    variants: tuple[Variant, ...]
    scenario: Callable[[Stage], Awaitable[None]]
    answer: Callable[[Results], str]
    together: bool = False
    predictions: tuple[Prediction, ...] = ()
    comparison: tuple[tuple[str, str], ...] = ()  # row title, format of its figures
    compared: tuple[str, ...] = ()  # the variants that it has columns for; none: all of them
    # What an interviewer asks next, and what to say.
    follow_ups: Mapping[str, str] = field(default_factory=dict)
    misses: str = ""  # what of the real thing the toy leaves out

    def __post_init__(self) -> None:
        expectations = {variant.expected for variant in self.variants}
        assert expectations == {"holds", "breaks"}, f"{self.name}: a lab needs a control"
