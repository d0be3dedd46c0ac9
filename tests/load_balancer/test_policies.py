"""The policies, by the properties that their papers and their users rely on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.load_balancer.policies import POLICIES, PeakEwma, Policy
from services.protocols.placement import Ring


@dataclass
class Fake:
    name: str
    weight: float = 1.0
    in_flight: int = 0
    latency: PeakEwma = field(default_factory=PeakEwma)


def backends(count: int) -> list[Fake]:
    return [Fake(f"b{number}") for number in range(count)]


def made(name: str, candidates: list[Fake], seed: int = 1) -> Policy:
    policy = POLICIES[name](Random(seed))
    policy.update({candidate.name: candidate.weight for candidate in candidates})
    return policy


def picks(policy: Policy, candidates: list[Fake], count: int) -> Counter[str]:
    return Counter(policy.pick(candidates, str(i), i * 0.001).name for i in range(count))


@pytest.mark.parametrize("name", POLICIES)
@given(count=st.integers(1, 20), key=st.text(max_size=20), seed=st.integers())
def test_every_policy_picks_a_candidate(name: str, count: int, key: str, seed: int) -> None:
    """Whatever the key, and even if the candidates are not those of the last `update`."""
    candidates = backends(count)
    policy = made(name, candidates[: count // 2], seed)

    assert policy.pick(candidates, key, 0.0) in candidates
    assert policy.pick(candidates[-1:], key, 1.0) is candidates[-1]


def test_round_robin_gives_each_its_turn() -> None:
    candidates = backends(3)

    assert picks(made("round_robin", candidates), candidates, 300) == {
        "b0": 100, "b1": 100, "b2": 100,
    }  # fmt: skip


def test_smooth_weighted_round_robin_interleaves() -> None:
    """nginx, ngx_http_upstream_round_robin.c: "5, 1, 1 … a a b a c a a"."""
    candidates = [Fake("a", 5), Fake("b", 1), Fake("c", 1)]
    policy = made("weighted_round_robin", candidates)

    assert "".join(policy.pick(candidates, "", 0).name for _ in range(14)) == "aabacaa" * 2


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_weighted_round_robin_is_exact_over_one_round(weights: list[int]) -> None:
    """In as many turns as the sum of all weights, each is picked as often as its weight says."""
    candidates = [Fake(f"b{i}", weight) for i, weight in enumerate(weights)]

    counts = picks(made("weighted_round_robin", candidates), candidates, sum(weights))

    assert counts == {f"b{i}": weight for i, weight in enumerate(weights)}


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), min_size=1, max_size=8))
def test_least_connections_picks_the_least_loaded_for_its_weight(
    state: list[tuple[int, int]],
) -> None:
    candidates = [Fake(f"b{i}", weight, in_flight) for i, (in_flight, weight) in enumerate(state)]

    picked = made("least_connections", candidates).pick(candidates, "", 0)

    assert (picked.in_flight + 1) / picked.weight == min((n + 1) / w for n, w in state)


def test_least_connections_spreads_what_is_answered_at_once() -> None:
    """Nothing in flight, ever: still not everything to the first."""
    candidates = backends(4)

    assert set(picks(made("least_connections", candidates), candidates, 40).values()) == {10}


def test_ip_hash_keeps_a_client_and_moves_most_when_one_leaves() -> None:
    """hash(key) mod n: of n backends one leaves, all but about 1/n of the keys move."""
    candidates = backends(5)
    policy = made("ip_hash", candidates)
    keys = [f"10.0.{i // 256}.{i % 256}" for i in range(2000)]
    before = {key: policy.pick(candidates, key, 0).name for key in keys}

    assert before == {key: policy.pick(candidates, key, 9).name for key in keys}
    moved = sum(before[key] != policy.pick(candidates[:-1], key, 0).name for key in keys)
    assert moved > 0.7 * len(keys)


@given(count=st.integers(2, 12), leaves=st.integers(0, 11), seed=st.integers(0, 2**32))
def test_consistent_hash_moves_only_the_keys_of_who_leaves(
    count: int, leaves: int, seed: int
) -> None:
    """Karger et al. 1997, section 4, "monotonicity": no key moves between two old buckets.

    Be it that the backend is gone for good (`update`) or only cannot be chosen at the moment.
    """
    candidates = backends(count)
    gone = candidates[leaves % count]
    rest = [candidate for candidate in candidates if candidate is not gone]
    policy = made("consistent_hash", candidates)
    without = made("consistent_hash", rest)
    random = Random(seed)
    for _ in range(200):
        key = random.randbytes(8).hex()
        before = policy.pick(candidates, key, 0)
        after = policy.pick(rest, key, 0)
        assert after is without.pick(rest, key, 0)
        assert before is gone or after is before


def test_consistent_hash_shares_are_close_to_the_weights() -> None:
    """128 points each: the spread of the shares is about 1/√128, a tenth."""
    candidates = [Fake("a", 1), Fake("b", 1), Fake("c", 2)]
    counts = picks(made("consistent_hash", candidates), candidates, 20_000)

    for candidate in candidates:
        assert counts[candidate.name] / 20_000 == pytest.approx(candidate.weight / 4, rel=0.3)


@given(st.integers(1, 5), st.integers(0, 50))
def test_a_lower_weight_takes_no_key_from_another(weight: int, key: int) -> None:
    """Of two equal backends, one whose weight is lowered loses keys and gets none."""
    before = Ring("ab", weights={"a": 5, "b": 5})
    after = Ring("ab", weights={"a": weight, "b": 5})

    if before.nodes_for(str(key)) == ("b",):
        assert after.nodes_for(str(key)) == ("b",)


def max_load(policy: Policy, candidates: list[Fake], requests: int) -> int:
    """Requests that are never answered, one after the other: the highest load at the end."""
    for _ in range(requests):
        policy.pick(candidates, "", 0).in_flight += 1
    return max(candidate.in_flight for candidate in candidates)


@pytest.mark.parametrize("seed", range(5))
def test_two_choices_beat_one_by_far(seed: int) -> None:
    """Mitzenmacher 2001: with two choices the maximum is log log n / log 2 + O(1), not
    log n / log log n."""
    n = 1000
    two = max_load(made("power_of_two_choices", backends(n), seed), backends(n), n)
    random = Random(seed)
    one = max(Counter(random.randrange(n) for _ in range(n)).values())

    print(f"seed {seed}: the longest queue of {n}: {two} with two choices, {one} with one")
    assert two <= 4 < one


def test_two_choices_avoid_a_slow_backend() -> None:
    """A backend with many requests in flight gets a request only if it is drawn twice: never."""
    candidates = backends(4)
    candidates[2].in_flight = 100

    assert picks(made("power_of_two_choices", candidates), candidates, 400)["b2"] == 0


def test_peak_ewma_avoids_a_slow_backend_and_tries_it_again() -> None:
    """Finagle: "highly reactive to latency spikes", and it "decays"."""
    candidates = backends(3)
    for candidate in candidates:
        candidate.latency.observe(0.5 if candidate.name == "b1" else 0.005, 0.0)
    policy = made("peak_ewma", candidates)

    assert sum(policy.pick(candidates, "", 1.0).name == "b1" for _ in range(300)) == 0
    assert sum(policy.pick(candidates, "", 100.0).name == "b1" for _ in range(300)) > 20


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0.001, 10), st.floats(0, 5)), min_size=1, max_size=20))
def test_peak_ewma_is_never_below_the_newest_nor_above_the_highest(
    observations: list[tuple[float, float]],
) -> None:
    average, now = PeakEwma(initial_s=0.001), 0.0
    for latency, wait in observations:
        now += wait
        average.observe(latency, now)
        assert latency <= average.value(now) * (1 + 1e-9)
        assert average.value(now) <= max(each for each, _ in observations) * (1 + 1e-9)
