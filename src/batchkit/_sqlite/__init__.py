"""What a `SQLiteCheckpoint` is made of: its file, the rows in it, and its lock."""
