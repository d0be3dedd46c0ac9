"""`python -m tests.load_balancer.clients PORT COUNT`: hold COUNT keep-alive connections.

In a process of its own, for each side has a file descriptor of every connection. Each connection
asks once, all stay open; "held" is printed; at the end of the input each asks once more, and the
answers are printed, counted by status.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

REQUEST = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
AT_ONCE = 200


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    await reader.readexactly(length)
    return head.split()[1].decode()


async def main(port: int, count: int) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with gate:
            # StreamReader's own limit is a bound, not an allocation.
            connection = await asyncio.open_connection("127.0.0.1", port)
            assert (status := await ask(*connection)) == "200", status
            return connection

    async def again(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> str:
        async with gate:
            return await ask(*connection)

    connections = await asyncio.gather(*(connect() for _ in range(count)))
    print("held", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    answers = Counter(await asyncio.gather(*(again(each) for each in connections)))
    print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
