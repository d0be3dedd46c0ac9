"""Tail sampling keeps what was slow or failed, whole, and a share of the rest."""

from __future__ import annotations

from labs.harness.traces import Span
from labs.harness.traces.sampling import TailSampler
from labs.harness.workloads.tracing import new_trace

LAST, FIRST = "f" * 32, "0" * 31 + "1"  # not drawn at any share below 1; drawn at every share


def request(trace: str, node: str, took_us: int, *, bad: bool = False) -> Span:
    return Span(trace, f"{trace}{node}", None, node, "request", 0, took_us, bad=bad, bytes=100)


def offer(sampler: TailSampler, trace: str, took_us: int, *, bad: bool = False) -> None:
    sampler.offer(request(trace, "store", took_us // 2, bad=bad))
    sampler.offer(request(trace, "gateway", took_us))


def test_the_slow_the_failed_and_a_share_are_kept() -> None:
    """Decided when the root ends, for the whole trace."""
    sampler = TailSampler(entry="gateway", slow_us=1000, share=0.1)
    offer(sampler, LAST, 900)
    offer(sampler, "e" * 32, 1100)
    offer(sampler, "d" * 32, 900, bad=True)
    offer(sampler, FIRST, 900)

    assert set(sampler.kept) == {"e" * 32, "d" * 32, FIRST}
    assert all(len(spans) == 2 for spans in sampler.kept.values())
    assert (sampler.bytes_in, sampler.bytes_kept) == (800, 600)


def test_a_late_span_follows_the_decision() -> None:
    """Work that nobody waited for ends after the root: it is kept with its trace, or not at all."""
    sampler = TailSampler(entry="gateway", slow_us=1000)
    offer(sampler, "e" * 32, 1100)
    offer(sampler, LAST, 900)
    sampler.offer(request("e" * 32, "late", 5000))
    sampler.offer(request(LAST, "late", 5000))

    assert [span.node for span in sampler.kept["e" * 32]] == ["store", "gateway", "late"]
    assert LAST not in sampler.kept


def test_what_cannot_be_held_is_given_up() -> None:
    """Memory is bounded: traces whose root never ends push out the oldest, and that is told."""
    sampler = TailSampler(entry="gateway", slow_us=1000, held_max=2)
    for trace in ("a" * 32, "b" * 32, "c" * 32):
        sampler.offer(request(trace, "store", 10))

    assert sampler.given_up == 1
    sampler.offer(request("a" * 32, "gateway", 5000))
    assert [span.node for span in sampler.kept["a" * 32]] == ["gateway"]


def test_head_sampling_draws_its_share_by_the_trace_id() -> None:
    """A tenth, by a decision that anybody who sees the id would make, too."""
    traces = [new_trace(0.1) for _ in range(20_000)]
    drawn = [trace for trace in traces if trace.sampled]

    assert 1_800 < len(drawn) < 2_200
    assert all(int(trace.trace_id[-14:], 16) < 0.1 * 2**56 for trace in drawn)
    assert all(trace.headers["traceparent"].endswith("-01") for trace in drawn)
    assert next(t for t in traces if not t.sampled).headers["traceparent"].endswith("-00")
    assert all(new_trace().sampled for _ in range(100))
