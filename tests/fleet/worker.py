"""A process of a fleet: tasks that acquire again and again. It prints "ready", is told from when to when, and
prints when each call came and went.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from batchkit import AcquireTimeout, AdaptiveLimiter, RedisDistributedLimiter, TokenBucket


class TooManyRequests(Exception):
    status_code = 429


async def call(limiter: RedisDistributedLimiter, end: float) -> list[list[float]]:
    """Calls that came and went, one after the other."""
    gone: list[list[float]] = []
    while (came := time.monotonic()) < end:
        try:
            await limiter.acquire(timeout=end - came)
        except AcquireTimeout:
            break
        gone.append([came, time.monotonic()])
    return gone


async def main(limiter: RedisDistributedLimiter, start: float, end: float, tasks: int) -> None:
    await asyncio.sleep(max(0.0, start - time.monotonic()))
    gone = await asyncio.gather(*(call(limiter, end) for _ in range(tasks)))
    json.dump([each for task in gone for each in task], sys.stdout)


async def adapt(url: str, end: float, capacity: float, processes: int, tasks: int) -> None:
    """Adaptive limiters, of which each stands for a process, against a server that refuses above a
    capacity.
    """
    server = TokenBucket(capacity, 10)
    refused = accepted = 0

    async def work(limiter: AdaptiveLimiter) -> None:
        nonlocal refused, accepted
        while time.monotonic() < end:
            async with limiter.permit() as permit:
                await asyncio.sleep(0.03)
                if server.try_acquire():
                    accepted += 1
                else:
                    refused += 1
                    permit.hear(429)

    limiters = [
        AdaptiveLimiter(RedisDistributedLimiter(url, "quota", rate=10, burst=1), min_rate=1, max_rate=100)
        for _ in range(processes)
    ]
    await asyncio.gather(*(work(limiter) for limiter in limiters for _ in range(tasks // processes)))
    json.dump([accepted, refused], sys.stdout)


if __name__ == "__main__":
    if sys.argv[1] == "adapt":
        url, until, capacity, processes, count = sys.argv[2:]
        asyncio.run(adapt(url, float(until), float(capacity), int(processes), int(count)))
    else:
        url, count, options = sys.argv[1:]
        limiter = RedisDistributedLimiter(url, "quota", **json.loads(options))
        print("ready", flush=True)
        start, end = map(float, sys.stdin.readline().split())
        asyncio.run(main(limiter, start, end, int(count)))
