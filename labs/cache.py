"""What does a cache in front of a database promise, and what does it take to keep that?

Claim.    With leases, single flight, consistent hashing and writes that go to the database first, a
          cache spares the database, serves nothing overwritten and loses no write with a server.
Method.   Two cache nodes, four Redis, a database of fixed capacity. Hold an answer of the database
          while its value is overwritten; kill all Redis under load; lose one; kill a cache node
          after writes; let 300 readers miss one hot key at once.
Control.  Write-back, no guard, no single flight, hash modulo n: the same load and faults.
"""

from labs.harness.lab.definition import Lab, Prediction, Results, Variant
from labs.harness.lab.stage import Stage
from labs.harness.lab.together import together
from labs.harness.testbed.description import ClusterSpec, MemberSpec, NodeSpec
from labs.harness.testbed.operator import OPERATOR_TOKEN
from labs.harness.workloads.cached import CacheUsers
from labs.scenarios import cache as parts
from labs.scenarios.cache import REDIS

CACHES = ("c1", "c2")
# Nine reads at a time of 150 ms each: sixty a second, whatever machine this is.
DATABASE = {"KV_PROTOCOL": "raft", "KV_READ_SLOTS": "9", "KV_READ_MS": "150"}
COMMON = {"CACHE_TTL_MS": "60000", "CACHE_FETCH_MS": "9000", "CACHE_LEASE_MS": "9000",
          "CACHE_LEASE_WAIT_MS": "9000", "CACHE_ENGINE_TIMEOUT_MS": "2000",
          "CACHE_FAILURES_TO_OPEN": "3", "CACHE_OPEN_MS": "200",
          "CACHE_ADMIN_TOKEN": OPERATOR_TOKEN}
NAIVE = {**COMMON, "CACHE_FLUSH_MS": "10000", "CACHE_GUARD": "none",
         "CACHE_SINGLE_FLIGHT": "off", "CACHE_PLACEMENT": "modulo", "CACHE_EARLY_BETA": "0"}


def cluster(name: str, settings: dict[str, str], policies: dict[str, str], *,
            more: bool = False) -> ClusterSpec:
    nodes = [NodeSpec("db", "kv", DATABASE, dials=())]
    for cache, policy in policies.items():
        own = {**settings, "CACHE_POLICY": policy}
        nodes.append(NodeSpec(cache, "cache", own, dials=("db", *REDIS)))
    members = [MemberSpec(each, "redis") for each in REDIS]
    if more:  # two small ones, to be filled beyond what they hold; and two copies of each key
        small = {"maxmemory": "3mb", "maxmemory-policy": "allkeys-lru"}
        members += [MemberSpec("small-redis", "redis", small),
                    MemberSpec("memcached", "memcached", {"memory-limit": "3"}, optional=True)]
        other = {**settings, "CACHE_ENGINE": "memcached", "CACHE_ENCODING": "protobuf"}
        settings = {**settings, "CACHE_POLICY": "through"}
        twins = {**settings, "CACHE_REPLICAS": "2", "CACHE_GUARD": "version"}
        nodes += [NodeSpec("twins", "cache", twins, dials=("db", *REDIS)),
                  NodeSpec("blobs", "kv", {"KV_PROTOCOL": "raft"}, dials=()),
                  NodeSpec("r", "cache", settings, dials=("blobs", "small-redis")),
                  NodeSpec("m", "cache", other, dials=("blobs", "memcached"))]
    return ClusterSpec(name, tuple(nodes), ("users",), members=tuple(members))


async def scenario(stage: Stage) -> None:
    await stage.cluster.ready(20)
    users = CacheUsers(stage.cluster, "users", CACHES, seed=stage.seed)
    try:
        await parts.overtake(stage, users)
        await parts.restart_redis(stage, users)
        # The engines have nodes and servers of their own.
        await together(parts.lose_servers(stage, users), parts.compare_engines(stage))
        await parts.stampede(stage, users)
    finally:
        await users.close()


def answer(results: Results) -> str:
    good, bad = (result.figures for result in results.values())
    told = good["engines"].items()
    engines = "; ".join(
        f"{engine}: hit ratio {each['hit_ratio']:.2f}, {each['evictions']} evictions"
        for engine, each in told)
    encodings = "; ".join(f"{each['encoding']}: {each['bytes']:.0f} bytes, {each['cpu_us']:.1f} µs"
                          for _, each in told)
    return f"""
        Treat the cache as a second copy that may vanish or lag, and decide what each case costs.
        Stampede: of {good["burst"]} readers that missed one key {good["asked"]} asked the database
        (single flight, and a lease between nodes); without, {bad["asked"]} did, and {bad["gone"]}
        got no answer in time. Stale sets: a write takes the lease of a slow reader away, so its
        old value is refused; the control put it back. Redis killed and restarted under load:
        {good["stale"]} of {good["judged"]} reads stale, {good["failed"]} of {good["operations"]}
        operations failed; control: {bad["stale"]} of {bad["judged"]} stale.

        Placement: one of four servers lost made {good["missed"]:.0%} of the keys miss on the ring,
        {bad["missed"]:.0%} with hash modulo n. Policy: write-through lost {good["lost"]} of
        {good["acknowledged"]} acknowledged writes when its node was killed, write-back
        {bad["lost"]}. (A write took {good["write_ms"]:.1f} ms and {bad["write_ms"]:.1f} ms.)

        With the same too little memory: {engines}. What an encoding adds to a value, and takes to
        encode or decode it: {encodings}. Such figures are about your keys and values: measure
        your own, and size the database for the day on which the hit ratio is zero.
    """


LAB = Lab(
    name="cache", questions=(21,), scenario=scenario, answer=answer,
    question="How do you put a cache in front of a database without serving wrong or losing data?",
    variants=(
        Variant("guarded", "holds", "write-through and cache-aside, leases, single flight, a ring",
                lambda _: cluster("guarded", COMMON, {"c1": "through", "c2": "aside"}, more=True)),
        Variant("naive", "breaks", "write-back, no guard, no single flight, hash modulo n",
                lambda _: cluster("naive", NAIVE, dict.fromkeys(CACHES, "back"))),
    ),
    predictions=(
        Prediction("One of four cache servers is lost. Does hash modulo n miss half the keys?",
                   lambda results: results["naive"].figures["missed"] > 0.5,
                   "only where hash mod 4 and hash mod 3 agree a key stays: one in four."),
        Prediction("Write-back acknowledges and the node dies. Are the writes in the database?",
                   lambda results: results["naive"].figures["lost"] == 0,
                   "they were in the memory of the process that was killed."),
        Prediction("300 readers miss a key at two cache nodes. Will two reads of the database do?",
                   lambda results: results["guarded"].figures["asked"] <= len(CACHES),
                   "one at each node at most; with the lease between them mostly one in all."),
    ),
    follow_ups={
        "Delete or update the entry on a write?": "Delete (cache-aside) is idempotent and can't be "
            "reordered into a wrong value; update (write-through) spares the next miss, and needs "
            "versions so that a late one does not win.",
        "What if the invalidation itself is lost?": "Remember it and do not read the key until it "
            "is delivered; a short time to live bounds what a crash forgets; at scale, delete from "
            "the database's own log (change data capture).",
        "How do you warm an empty cache?": "Let single flight and jitter spread the misses, admit "
            "traffic slowly, or fill from a neighbour cluster (Nishtala et al. 2013, §4.3).",
    },
    misses="One database node, one machine, no TLS; real hot keys are replicated or kept in the "
           "process, and a real ring is changed by a coordinator that tells all nodes at once.",
    comparison=(
        ("requests to the database for one hot key", "{asked} of {burst}"),
        ("of them without an answer", "{gone}"),
        ("stale reads, Redis restarted", "{stale} of {judged}"),
        ("keys that miss, one of four lost", "{missed:.0%}"),
        ("acknowledged writes lost in a crash", "{lost} of {acknowledged}"),
        ("a write takes (median)", "{write_ms:.1f} ms"),
    ),
)
