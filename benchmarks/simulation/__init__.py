"""What adaptive limiters do against a quota that they do not know: discrete events, seeded, no clock.

    python3 noxfile.py -s simulation -- [--quick] [--seeds N] [--json FILE] [--plot FOLDER]

Workers share one limiter and one controller. Each takes the next item, waits for the limiter, calls, and on
a 429 retries the item after a back-off of its own. The server counts exactly.
"""
