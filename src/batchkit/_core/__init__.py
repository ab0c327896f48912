"""The pure room: arithmetic and decisions as functions of `now`.

Nothing in here reads a clock, takes a lock, does I/O or knows an event loop, and nothing in here imports
another part of batchkit. The callers hold their own lock while they call in, and act on what comes back
after they let go of it.
"""
