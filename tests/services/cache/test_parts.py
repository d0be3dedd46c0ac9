"""The parts of the cache that decide without I/O: expiry, flights, entries, codec, dirty keys."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.codec import ENCODINGS, Codec
from services.cache.entry import UNKNOWN, Entry, Kind, may_replace
from services.cache.expiry import jittered_ms, recompute_early
from services.cache.flights import SingleFlight
from services.cache.write_back import Dirty, DirtyKeys

draws = st.floats(0, 1, exclude_max=True)
entries = st.builds(
    Entry,
    kind=st.sampled_from(Kind),
    version=st.integers(0, UNKNOWN),
    value=st.sampled_from([b"null", b'{"a":[1,2]}', b'"\xc3\xbc"', b"1.5"]),
    stored_ms=st.integers(0, 2**60),
    expires_ms=st.integers(0, 2**60),
    delta_ms=st.integers(0, 2**31),
    token=st.integers(0, 2**63 - 1),
)


# --- expiry


@given(st.integers(1, 10**9), st.floats(0, 1), draws)
def test_jitter_stays_within_its_share(ttl_ms: int, share: float, draw: float) -> None:
    assert max(1, ttl_ms * (1 - share) - 1) <= jittered_ms(ttl_ms, share, draw)
    assert jittered_ms(ttl_ms, share, draw) <= ttl_ms * (1 + share) + 1


def test_xfetch_is_ever_more_likely_as_the_expiry_comes_near() -> None:
    """Vattani et al. 2015, Algorithm 3: P(recompute with t ms left) = exp(-t / (beta · delta))."""
    random = Random(1)
    for left_ms, expected in ((0, 1.0), (50, 0.607), (100, 0.368), (300, 0.0498)):
        share = sum(recompute_early(1_000 - left_ms, 1_000, 100, 1.0, random.random())
                    for _ in range(20_000)) / 20_000  # fmt: skip
        assert share == pytest.approx(expected, abs=0.015), left_ms


@given(draws)
def test_xfetch_can_be_switched_off(draw: float) -> None:
    """beta 0: never before the expiry, always from then on."""
    assert not recompute_early(999, 1_000, 50, 0.0, draw)
    assert recompute_early(1_000, 1_000, 50, 0.0, draw)


# --- single flight


def test_one_leads_and_the_rest_join() -> None:
    flights = SingleFlight()
    led = [flights.join("a")[1] for _ in range(1_000)]
    assert led == [True] + [False] * 999
    assert flights.join("b")[1], "another key is another flight"


def test_without_single_flight_everybody_leads() -> None:
    flights = SingleFlight(enabled=False)
    assert all(flights.join("a")[1] for _ in range(1_000))
    assert len(flights) == 0


def test_who_joined_late_does_not_take_an_answer_that_a_write_overtook() -> None:
    """The history of the module: c1 departs, a write is acknowledged, c3 joins what c1 began."""
    flights = SingleFlight()
    c1 = flights.arrive()
    flight, leads = flights.join("a")
    assert leads
    c3 = flights.arrive()
    joined, leads = flights.join("a")
    assert (joined, leads) == (flight, False)
    assert flights.good_for(flight, c1, confirmed=None), "its own read came after it asked"
    assert not flights.good_for(flight, c3, confirmed=None)
    sent = flights.arrive()
    assert flights.good_for(flight, c3, confirmed=sent)
    c4 = flights.arrive()
    assert not flights.good_for(flight, c4, confirmed=sent), "it came after the fill was sent"
    flights.land(flight)
    again, leads = flights.join("a")
    assert leads
    assert flights.good_for(again, c3, confirmed=None), "two flights suffice"


def test_a_write_ends_the_joining() -> None:
    flights = SingleFlight()
    before, _ = flights.join("a")
    flights.forget("a")
    after, leads = flights.join("a")
    assert leads
    flights.land(before)
    assert flights.join("a") == (after, False), "the old flight's landing ends nothing of the new"


def test_a_look_that_a_landing_overtook_says_nothing() -> None:
    """c2 looks before c1's flight lands, and is answered after it; c3 looks after it."""
    flights = SingleFlight()
    c2 = flights.look("a")
    other = flights.look("b")
    flight, _ = flights.join("a")
    flights.land(flight)
    c3 = flights.look("a")
    assert not flights.looked("b", other), "another key's flight"
    assert not flights.looked("a", c3)
    assert flights.looked("a", c2)
    c4 = flights.look("a")
    assert not flights.looked("a", c4), "nothing is kept of a key that nobody looks for"


def test_without_single_flight_nobody_looks_again() -> None:
    flights = SingleFlight(enabled=False)
    look = flights.look("a")
    flights.land(flights.join("a")[0])
    assert not flights.looked("a", look)


# --- entries


@pytest.mark.parametrize(
    ("old", "new", "may"),
    [
        (None, Entry(Kind.VALUE, 1), True),
        (Entry(Kind.VALUE, 2), Entry(Kind.VALUE, 1), False),
        (Entry(Kind.VALUE, 1), Entry(Kind.VALUE, 2), True),
        (Entry(Kind.VALUE, 2), Entry(Kind.VALUE, 2), True),
        (Entry(Kind.TOMBSTONE, 2), Entry(Kind.VALUE, 1), False),
        (Entry(Kind.TOMBSTONE, 2), Entry(Kind.VALUE, 2), True),
        (Entry(Kind.TOMBSTONE, UNKNOWN), Entry(Kind.VALUE, 99), False),
        (Entry(Kind.TOMBSTONE, 5), Entry(Kind.TOMBSTONE, 4), False),
        (Entry(Kind.LEASE), Entry(Kind.VALUE, 1), True),
        (Entry(Kind.ABSENT, 3), Entry(Kind.VALUE, 2), False),
    ],
)
def test_what_may_replace_what(old: Entry | None, new: Entry, may: bool) -> None:
    assert may_replace(old, new) is may


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(entry=entries)
def test_both_encodings_bring_an_entry_back(encoding: str, entry: Entry) -> None:
    codec = Codec(encoding)
    assert codec.decode(codec.encode(entry)) == entry


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(data=st.binary(max_size=200))
def test_rubbish_is_no_entry(encoding: str, data: bytes) -> None:
    """Whatever stands in the cache: an entry, or ValueError; never another exception."""
    with suppress(ValueError):
        assert isinstance(Codec(encoding).decode(data), Entry)


def test_each_encoding_refuses_the_other_and_protobuf_is_smaller() -> None:
    entry = Entry(Kind.VALUE, 12, b'{"id":17}', 1_790_000_000_000, 1_790_000_005_000, 3, 2**40)
    json, protobuf = (Codec(encoding) for encoding in ENCODINGS)
    with pytest.raises(ValueError, match="not an entry"):
        json.decode(protobuf.encode(entry))
    with pytest.raises(ValueError, match="not an entry"):
        protobuf.decode(json.encode(entry))
    assert len(protobuf.encode(entry)) < len(json.encode(entry)) / 2


# --- write-back


def dirty(key: str, value: bytes = b"1", since_s: float = 0.0) -> Dirty:
    return Dirty(key, value, since_s, "token")


def test_writes_of_one_key_coalesce_and_the_queue_is_bounded() -> None:
    queue = DirtyKeys(2)
    assert queue.put(dirty("a", b"1", 1.0))
    assert queue.put(dirty("b"))
    assert not queue.put(dirty("c")), "full: the caller writes through"
    assert queue.put(dirty("a", b"2", 9.0)), "what waits already takes no more room"
    waiting = queue.get("a")
    assert waiting is not None
    assert (waiting.value, waiting.since_s, len(queue), queue.coalesced) == (b"2", 1.0, 2, 1)


def test_what_is_being_flushed_is_still_read_and_a_newer_write_wins() -> None:
    queue = DirtyKeys(2)
    queue.put(dirty("a", b"1"))
    (taken,) = queue.take(10)
    assert queue.get("a") is taken
    queue.put(dirty("a", b"2"))
    assert queue.take(10) == [], "one flush of a key at a time, or they may overtake each other"
    queue.settled(taken, flushed=False)
    (again,) = queue.take(10)
    assert again.value == b"2", "the failed one was overwritten, and is not flushed over it"
    queue.settled(again, flushed=True)
    assert len(queue) == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["put", "take", "ok", "fail"]))))
def test_no_acknowledged_write_leaves_the_queue_unflushed(steps: list[tuple[str, str]]) -> None:
    """Whatever happens in whatever order, a key's last acknowledged write ends in the store."""
    queue, store, acknowledged = DirtyKeys(2), {}, {}
    taken: list[Dirty] = []
    for number, (key, step) in enumerate(steps):
        if step == "put":
            value = b"%d" % number
            if not queue.put(dirty(key, value)):
                store[key] = value  # written through: the queue had nothing of that key
            acknowledged[key] = value
        elif step == "take":
            taken += queue.take(1)
        elif taken:
            settled = taken.pop(0)
            if step == "ok":
                store[settled.key] = settled.value
            queue.settled(settled, flushed=step == "ok")
        assert len(queue) <= 2
    for settled in taken:
        queue.settled(settled, flushed=False)
    while batch := queue.take(1):
        store[batch[0].key] = batch[0].value
        queue.settled(batch[0], flushed=True)
    assert store == acknowledged
