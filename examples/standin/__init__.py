"""Stand-ins for the paid services, so that the examples run without a key and tests can count every call.

`python -m examples.standin` serves them on loopback; `create_app` gives the same ASGI app for use in-process.
Nothing here imports batchkit: who checks a limiter must count for himself.
"""

from examples.standin.app import Config, create_app

__all__ = ["Config", "create_app"]
