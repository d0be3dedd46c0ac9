"""What has no I/O of its own: ejection, hysteresis, budgets, limits, identity; and the timer."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.telemetry import parse_traceparent
from services.load_balancer import slow_start
from services.load_balancer.admission import BUCKETS_MAX, Admission, Limits
from services.load_balancer.errors import TooManyRequests
from services.load_balancer.framing import RequestHead
from services.load_balancer.hysteresis import Hysteresis
from services.load_balancer.identity import Identity, draw
from services.load_balancer.outliers import OutlierDetector
from services.load_balancer.timer import Timer
from services.resilience.retry_budget import RetryBudget
from tests.load_balancer.rig import until


def detector(count: int = 4, **settings: float) -> OutlierDetector:
    made = OutlierDetector(
        failures_to_eject=3, ejection_s=10.0, share_max=settings.get("share_max", 0.5)
    )
    made.update([f"b{i}" for i in range(count)])
    return made


def fail(outliers: OutlierDetector, name: str, now: float, times: int = 3) -> bool:
    return [outliers.failure(name, now) for _ in range(times)][-1]


def test_failures_in_a_row_eject_and_a_success_starts_anew() -> None:
    outliers = detector()
    fail(outliers, "b0", 0.0, 2)
    outliers.success("b0")

    assert not fail(outliers, "b0", 0.0, 2)
    assert fail(outliers, "b0", 5.0, 1)
    assert outliers.ejected_until("b0") == 15.0


def test_each_ejection_is_longer_until_good_behaviour_shortens_it() -> None:
    """Envoy: "base_ejection_time multiplied by the number of times the host has been ejected in a
    row", one step back for each healthy interval."""
    outliers = detector()
    fail(outliers, "b0", 0.0)
    fail(outliers, "b0", 10.0)
    assert outliers.ejected_until("b0") == 30.0

    fail(outliers, "b0", 30.0)
    assert outliers.ejected_until("b0") == 60.0

    fail(outliers, "b0", 60.0 + 30.0)
    assert outliers.ejected_until("b0") == 90.0 + 10.0


@given(
    st.integers(1, 8),
    st.floats(0, 1),
    st.lists(st.tuples(st.integers(0, 7), st.floats(0, 3)), max_size=80),
)
def test_never_more_than_the_share_and_never_the_last(
    count: int, share_max: float, failures: list[tuple[int, float]]
) -> None:
    """Whoever fails, whenever: some backend can always be chosen."""
    outliers = detector(count, share_max=share_max)
    now = 0.0
    for number, wait in failures:
        now += wait
        outliers.failure(f"b{number % count}", now)
        out = sum(outliers.ejected_until(f"b{i}") > now for i in range(count))
        assert out <= max(1, int(share_max * count))
        assert out < count


def test_ejection_can_be_switched_off_and_the_unknown_is_no_error() -> None:
    off = OutlierDetector(failures_to_eject=0, ejection_s=1.0)
    off.update(["a", "b"])

    assert not fail(off, "a", 0.0, 100)
    assert not fail(detector(), "gone", 0.0)


def test_one_bad_check_takes_nobody_out() -> None:
    check = Hysteresis(rise=2, fall=3)
    outcomes = [True, False, False, True, False, False, False, True, False, True, True]
    verdicts = []
    for ok in outcomes:
        check.record(ok)
        verdicts.append(check.healthy)

    assert verdicts == [True] * 6 + [False] * 4 + [True]


@given(st.integers(1, 5), st.integers(1, 5), st.lists(st.booleans(), max_size=60))
def test_the_verdict_changes_only_after_so_many_in_a_row(
    rise: int, fall: int, outcomes: list[bool]
) -> None:
    check = Hysteresis(rise=rise, fall=fall)
    for index, ok in enumerate(outcomes):
        before = check.healthy
        assert check.record(ok) is (check.healthy is not before)
        if check.healthy is not before and before is not None:
            needed = rise if ok else fall
            assert outcomes[index + 1 - needed : index + 1] == [ok] * needed


def test_slow_start_grows_to_the_whole_weight() -> None:
    shares = [slow_start.share(second, 10.0) for second in range(12)]

    assert shares == sorted(shares)
    assert shares[0] == slow_start.START_SHARE
    assert shares[5] == 0.5
    assert shares[10:] == [1.0, 1.0]
    assert slow_start.share(0.0, 0.0) == 1.0  # switched off


@given(
    ratio=st.floats(0, 1),
    minimum=st.floats(0, 20),
    burst=st.floats(1, 50),
    steps=st.lists(st.tuples(st.booleans(), st.floats(0, 2)), max_size=300),
)
def test_retries_stay_within_their_budget(
    ratio: float, minimum: float, burst: float, steps: list[tuple[bool, float]]
) -> None:
    """retries ≤ burst + ratio × requests + minimum_per_s × seconds, at every moment."""
    budget = RetryBudget(ratio=ratio, minimum_per_s=minimum, burst=burst)
    now, requests = 0.0, 0
    for retry, wait in steps:
        now += wait
        if retry:
            budget.try_spend(now)
        else:
            budget.record_request()
            requests += 1
        assert budget.spent <= burst + ratio * requests + minimum * now + 1e-6


def test_a_storm_is_paid_by_requests_alone() -> None:
    """Everything fails: 1,000 requests may have 10 + 20 % retries, not 1,000 or 2,000."""
    budget = RetryBudget(ratio=0.2, burst=10)
    for _ in range(1000):
        budget.record_request()
        budget.try_spend(0.0)

    assert 200 <= budget.spent <= 210
    assert budget.denied == 1000 - budget.spent


def test_a_clock_turned_back_brings_nothing() -> None:
    budget = RetryBudget(ratio=0.0, minimum_per_s=1.0, burst=1.0)
    assert budget.try_spend(100.0)

    assert not budget.try_spend(50.0)
    assert not budget.try_spend(100.5)
    assert budget.try_spend(101.0)


@pytest.mark.parametrize("wrong", [{"ratio": 1.5}, {"ratio": 0.1, "burst": 0.5},
                                   {"ratio": 0.1, "minimum_per_s": -1}])  # fmt: skip
def test_a_budget_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        RetryBudget(**wrong)


@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**128 - 1),
    st.booleans(),
    st.sampled_from([None, b"order-17", b"a,b", b"x" * 200]),
)
def test_an_identity_is_valid_and_keeps_what_was_brought(
    span: int, trace: int, sampled: bool, request_id: bytes | None
) -> None:
    """W3C Trace Context: no zero ids; the trace id and the flags go on, the span is ours."""
    brought = f"00-{'a' * 32}-{'b' * 16}-0{sampled:d}".encode()
    for traceparent in (None, brought, b"rubbish"):
        head = RequestHead(b"GET", b"/")
        head.traceparent, head.request_id = traceparent, request_id
        made = Identity(draw(lambda _: span << 128 | trace)[-1], head)
        lines = made.lines.decode().split("\r\n")
        flags = "01" if traceparent != brought or sampled else "00"

        assert lines[0] == f"X-Request-Id: {made.request_id}"
        assert lines[1] == f"traceparent: 00-{made.trace_id}-{made.span_id}-{flags}"
        assert parse_traceparent(lines[1].partition(": ")[2]) is not None
        assert made.trace_id == "a" * 32 or traceparent != brought
        assert made.parent_span_id == ("b" * 16 if traceparent == brought else None)
        assert made.request_id == ("order-17" if request_id == b"order-17" else made.span_id)


def test_admission_remembers_a_bounded_number_of_clients() -> None:
    """A flood from ever new addresses must not fill the memory; a busy client stays limited."""
    admission = Admission(Limits(rate_per_s=1, rate_burst=2))
    for number in range(3 * BUCKETS_MAX):
        admission.begin(f"10.{number}", number * 1e-6)
        admission.end()
        assert len(admission._buckets) <= BUCKETS_MAX
    refused = [admission.begin("busy", 1.0) for _ in range(4)]

    assert [each is None for each in refused] == [True, True, False, False]
    assert isinstance(refused[-1], TooManyRequests)
    assert refused[-1].headers() == {"Retry-After": "1"}


async def test_a_timer_fires_once_at_the_last_time_that_was_set() -> None:
    """However often it is put off, forwards and backwards."""
    loop = asyncio.get_running_loop()
    fired: list[float] = []
    timer = Timer(loop, lambda: fired.append(loop.time()))
    began = loop.time()
    timer.set(began + 0.01)
    timer.set(began + 60)
    for _ in range(100):
        timer.set(began + 0.05)
    await until(lambda: fired)
    await asyncio.sleep(0.05)

    assert len(fired) == 1
    assert fired[0] >= began + 0.045
    timer.set(loop.time() + 0.01)
    timer.clear()
    await asyncio.sleep(0.03)
    assert len(fired) == 1
    timer.stop()
