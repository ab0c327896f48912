"""How a run goes: a desk that decides, tasks or threads that work, and streams to read from."""
