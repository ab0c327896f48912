"""Chinese words: where they come from, how they are read, and what is said of them."""
