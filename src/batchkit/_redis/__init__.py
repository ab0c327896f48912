"""Limiters of a whole fleet, whose permits come from Redis."""
