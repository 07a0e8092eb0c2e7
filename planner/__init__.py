"""Decides, and does nothing else: no clock, randomness, I/O or logging; `now` is an argument."""
