"""A process of a fleet: its threads acquire again and again, and each says when it went."""

from __future__ import annotations

import os
import sys
import threading
import time

from batchkit import RedisDistributedLimiter


def main(url: str, key: str, waiters: str, rate: str, burst: str) -> None:
    limiter = RedisDistributedLimiter(url, key, rate=float(rate), burst=int(burst))

    def call() -> None:
        while True:
            limiter.acquire_sync()
            os.write(1, f"{time.monotonic()}\n".encode())

    for _ in range(int(waiters)):
        threading.Thread(target=call).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
