"""The pretended cloud, for every test here."""

from tests.nodes.cloud import cloud

__all__ = ["cloud"]
