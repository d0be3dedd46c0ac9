"""The bare aiohttp handler that an observed one is compared with: no telemetry, no checks.

python -m labs.harness.bench.bare PORT BODY
"""

from __future__ import annotations

import sys

from aiohttp import web

from labs.harness.workloads.http_load import new_event_loop


def main() -> None:
    port, body = int(sys.argv[1]), sys.argv[2].encode()

    async def get(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_get("/kv/{key}", get)
    # On the loop that the store's nodes run on: the ratio shall tell what observing costs.
    loop = new_event_loop()
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, loop=loop)


if __name__ == "__main__":
    main()
