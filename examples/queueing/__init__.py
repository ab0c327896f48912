"""The queue of jobs: how urgent they are, how many run at once, and what becomes of those that fail."""
