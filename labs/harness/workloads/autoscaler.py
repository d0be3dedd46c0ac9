"""An autoscaler at work: it looks at a balancer, starts replicas, and lets the balancer use them.

The decision is `services.resilience.target_tracking`'s, from what the balancer's `/status` shows:
the share of its backends' places that are taken. A replica that is not needed is stopped and has
weight 0; one that is, is started, then given its weight through the balancer's admin face; its
health checks decide when it gets its first request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import aiohttp

from labs.harness.lab.stage import InvalidRun
from labs.harness.testbed.cluster import Cluster
from labs.harness.testbed.operator import AS_OPERATOR
from services.resilience.target_tracking import TargetTracking

LOOK_EVERY_S = 0.2
WITHIN_S = 5.0


class Autoscaler:
    """Scales `replicas` (in the order in which they are started) behind `balancer`.

    `places`: how many requests a replica gets at a time. `running`: those that are started.
    """

    def __init__(
        self,
        cluster: Cluster,
        balancer: str,
        replicas: Sequence[str],
        policy: TargetTracking,
        *,
        places: int,
        tell: Callable[[str], None],
    ) -> None:
        self._cluster, self._balancer = cluster, balancer
        self._replicas = tuple(replicas)
        self._policy = policy
        self._places = places
        self._tell = tell
        self.running = policy.minimum
        self.serving = policy.minimum
        self.utilisation = 0.0

    async def begin(self) -> None:
        """Stop all but the minimum: the spare ones come when they are needed."""
        spare = self._replicas[self._policy.minimum :]
        await asyncio.gather(*(self._weigh(each, 0) for each in spare))
        await asyncio.gather(*(self._cluster.stop_node(each) for each in spare))

    async def run(self) -> None:
        """Look and act, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._look()
            wanted = self._policy.look(loop.time(), self.running, self.utilisation)
            if wanted > self.running:
                await self._start(self._replicas[self.running : wanted])
            elif wanted < self.running:
                await self._stop(self._replicas[wanted : self.running])
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        status = await self._cluster.status(self._balancer)
        backends = (status or {}).get("backends", {})
        serving = [each for each in backends.values() if each["available"]]
        if serving:
            taken = sum(each["in_flight"] for each in serving)
            self.utilisation = taken / (self._places * len(serving))
            self.serving = len(serving)

    async def _start(self, names: Sequence[str]) -> None:
        self.running += len(names)
        self._tell(f"{self.utilisation:.0%} of places taken: starting {', '.join(names)}")
        await asyncio.gather(*map(self._cluster.start, names))
        await asyncio.gather(*(self._weigh(each, 1) for each in names))

    async def _stop(self, names: Sequence[str]) -> None:
        self.running -= len(names)
        self._tell(f"{self.utilisation:.0%} of places taken: stopping {', '.join(names)}")
        await asyncio.gather(*(self._weigh(each, 0) for each in names))
        await asyncio.gather(*map(self._cluster.stop_node, names))

    async def _weigh(self, name: str, weight: int) -> None:
        url = f"http://{self._cluster.direct_address(self._balancer)}/admin/backends/{name}"
        within = aiohttp.ClientTimeout(total=WITHIN_S)
        try:
            async with self._cluster.session.patch(
                url, json={"weight": weight}, headers=AS_OPERATOR, timeout=within
            ) as answer:
                answer.raise_for_status()
        except TimeoutError as late:
            why = f"not within {WITHIN_S:g} s"
            raise InvalidRun(self._not_weighed(name, weight, why)) from late
        except aiohttp.ClientError as error:
            raise InvalidRun(self._not_weighed(name, weight, str(error))) from error

    def _not_weighed(self, name: str, weight: int, why: str) -> str:
        return f"{self._balancer} did not give {name} weight {weight}: {why}"
