"""Renderers: state in, something rich can print out; no I/O."""
