"""Processes of a simulated fleet: in the line that stands in Redis, and with plain bookings."""
