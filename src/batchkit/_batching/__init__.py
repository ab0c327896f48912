"""What a `Batcher` is made of: keys on their way, who makes their calls, and who waits."""
