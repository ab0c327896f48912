"""A process of a fleet that loads one key through a tier: says when it loads, and what it got.

Arguments: the URL, seconds that a load takes, the lease; then a line on stdin lets it begin.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from batchkit import RedisTier
from tests.redis.tiers import load_through


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def main(url: str, seconds: str, lease: str) -> None:
    tier: RedisTier[Any] = RedisTier(url, "words", timeout=min(1.0, float(lease) / 2), lease=float(lease))

    def load(keys: list[Any]) -> dict[Any, Any]:
        say("loads", *keys)
        time.sleep(float(seconds))
        return dict.fromkeys(keys, os.getpid())

    tier.get_many_sync(["nothing"])
    say("ready")
    sys.stdin.readline()
    say("got", load_through(tier, ["key"], load)["key"])
    sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
