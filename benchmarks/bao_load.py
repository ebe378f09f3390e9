"""The load for OpenBao, driven like `benchmarks.load`: HTTP keep-alive, one request in flight on each connection.

`python -m benchmarks.bao_load URL TOKEN read|create --requests N` reads KV v2 secrets, or creates leased tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

import aiohttp
import uvloop

CONNECTIONS = 32
SECRETS = 1_000


async def _ask(http: aiohttp.ClientSession, url: str, kind: str, number: int) -> float:
    started = time.perf_counter()
    if kind == "read":
        asked = http.get(f"{url}/v1/secret/data/bench/t{number % SECRETS}")
    else:
        asked = http.post(f"{url}/v1/auth/token/create", json={"ttl": "300s", "policies": ["bench"]})
    async with asked as answer:
        answer.raise_for_status()
        await answer.read()
    return time.perf_counter() - started


async def main() -> None:
    """Keep one request in flight on each connection, for each line on standard input once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("token")
    parser.add_argument("kind", choices=("read", "create"))
    parser.add_argument("--requests", type=int, default=100, help="of each connection")
    chosen = parser.parse_args()
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector, headers={"X-Vault-Token": chosen.token}) as http:

        async def keep(first: int, requests: int) -> list[float]:
            return [await _ask(http, chosen.url, chosen.kind, first + number) for number in range(requests)]

        await asyncio.gather(*(keep(number, 1) for number in range(CONNECTIONS)))
        print("connected", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            started = time.perf_counter()
            parts = await asyncio.gather(*(keep(31 * number, chosen.requests) for number in range(CONNECTIONS)))
            seconds, taken = time.perf_counter() - started, sorted(each for part in parts for each in part)
            within = (taken[int(len(taken) * share)] for share in (0.5, 0.99, 0.999))
            print(f"{seconds:.6f}", *(f"{each:.6f}" for each in within), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
