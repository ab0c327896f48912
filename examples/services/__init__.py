"""The services for text, pictures and sounds: where they are, how they are called, and how often."""
