"""A backend to be killed: `python -m tests.load_balancer.backend PORT` answers everything with 200.

Each answer takes some milliseconds, so that a kill meets requests that are being worked on. It
imports nothing else of the project: it has to be back soon.
"""

from __future__ import annotations

import asyncio
import random
import re
import sys

WORK_S = 0.005
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"
LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            length = LENGTH.search(await reader.readuntil(b"\r\n\r\n"))
            await reader.readexactly(int(length[1]) if length else 0)
            await asyncio.sleep(random.uniform(0, 2 * WORK_S))
            writer.write(ANSWER)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main(port: int) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
