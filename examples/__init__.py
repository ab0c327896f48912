"""Whole workers to copy, and the stand-in services that they run against."""
