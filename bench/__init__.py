"""Measurements: ``python -m bench`` prints one JSON object a figure. Ratios and bars are judged within one run."""
