"""Serve diffusion models as disaggregated stages on the cheapest mix of GPUs."""

__version__ = "0.1.0"
