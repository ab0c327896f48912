"""What a `TTLCache` is made of: its shelf, its loads, and the tier behind it."""
