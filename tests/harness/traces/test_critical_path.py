"""The critical path: every moment of a request belongs to exactly one span."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from labs.harness.traces import Span, critical_path, culprit, usual


def span(name: str, parent: str | None, begin: int, end: int, event: str = "request") -> Span:
    node, _, peer = name.partition("→")
    return Span("t", name, parent, node, event, begin, end, peer=peer)


def shown(spans: list[Span]) -> list[tuple[str, int, int]]:
    return [(each.span.span_id, each.begin_us, each.end_us)
            for each in critical_path(spans, spans[0])]  # fmt: skip


def test_time_in_which_no_child_ran_is_the_spans_own() -> None:
    """A request that calls two others, one after the other."""
    spans = [span("a", None, 0, 100), span("b", "a", 10, 40), span("c", "a", 50, 90)]

    assert shown(spans) == [
        ("a", 0, 10), ("b", 10, 40), ("a", 40, 50), ("c", 50, 90), ("a", 90, 100),
    ]  # fmt: skip


def test_of_what_ran_at_the_same_time_the_one_that_ended_last_counts() -> None:
    """Nobody waited for the quick one of two parallel calls."""
    spans = [span("a", None, 0, 100), span("quick", "a", 10, 30), span("slow", "a", 10, 90)]

    assert shown(spans) == [("a", 0, 10), ("slow", 10, 90), ("a", 90, 100)]


def test_a_child_that_goes_on_after_its_parent_is_cut() -> None:
    """The store's followers persist after the leader has answered by the others' majority."""
    spans = [span("a", None, 0, 100), span("late", "a", 80, 200)]

    assert shown(spans) == [("a", 0, 80), ("late", 80, 100)]


def way(link_ms: int = 0, store_ms: int = 0) -> list[Span]:
    """c1 → gateway → store, a thousand microseconds each, but for what is slow."""
    link, store = link_ms * 1000, store_ms * 1000
    end = 5000 + link + store
    return [
        span("c1", None, 0, end, "client"),
        span("gateway", "c1", 1000, end - 1000),
        span("gateway→store", "gateway", 1500, end - 1500, "call"),
        span("store", "gateway→store", 2000 + link // 2, end - 2000 - link // 2),
    ]


def test_a_slow_link_is_the_own_time_of_a_call_whose_callee_was_quick() -> None:
    """The caller waited for 201 ms, the callee worked for 1."""
    found = culprit(way(link_ms=200), way(link_ms=200)[0])

    assert found.place == ("link", "gateway→store")
    assert found.own_us == 201_000
    assert found.total_us == 205_000


def test_a_slow_service_is_the_own_time_of_its_request() -> None:
    """The same duration for the caller, another cause."""
    spans = way(store_ms=200)
    found = culprit(spans, spans[0])

    assert (found.place, found.own_us) == (("service", "store"), 201_000)
    assert "store itself" in str(found)


def test_where_the_trace_ends_nobody_can_say_what_is_behind() -> None:
    """A callee that began a trace of its own left no span here: no guess."""
    spans = way(store_ms=200)[:-1]
    found = culprit(spans, spans[0])

    assert found.place == ("lost", "gateway→store")


def test_calls_over_one_slow_link_are_one_cause() -> None:
    """Two short waits at one place outweigh a longer one elsewhere."""
    spans = [
        span("a", None, 0, 100),
        span("a→b", "a", 0, 30, "call"),
        span("b", "a→b", 29, 30),
        span("a→b.", "a", 30, 60, "call")._replace(peer="b"),
        span("b.", "a→b.", 59, 60)._replace(node="b"),
    ]
    found = culprit(spans, spans[0])

    assert (found.place, found.own_us) == (("link", "a→b"), 58)


def test_what_takes_long_anyway_is_not_the_news() -> None:
    """Beyond what is usual: a store that always takes 300 ms is not why this order took 500."""
    ordinary = [way(store_ms=300), way(store_ms=310), way(store_ms=305, link_ms=2)]
    spans = way(store_ms=300, link_ms=200)
    usually = usual((each, each[0]) for each in ordinary)

    assert usually["service", "store"] == 306_000
    assert culprit(spans, spans[0]).place == ("service", "store")
    assert culprit(spans, spans[0], usually).place == ("link", "gateway→store")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 99), st.integers(1, 99)), max_size=12))
def test_the_segments_leave_no_gap_and_overlap_nowhere(shape: list[tuple[int, int, int]]) -> None:
    """Whatever the tree: the segments' lengths sum up to the root's duration."""
    spans = [span("0", None, 0, 100)]
    for number, (parent, begin, length) in enumerate(shape, 1):
        spans.append(span(str(number), str(min(parent, number - 1)), begin, begin + length))
    segments = critical_path(spans, spans[0])

    at = 0
    for segment in segments:
        assert segment.begin_us == at < segment.end_us
        at = segment.end_us
    assert at == 100
