"""Limiters that share a quota through Redis: a server, the libraries, and processes that call them."""
