"""Several processes on one machine: Valkey, stand-in and workers, and who sends them jobs."""
