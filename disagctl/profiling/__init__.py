"""Measuring a model's stages on the machine we are on, and keeping what was found.

shapes    what is measured: the grid of sizes and step counts
models    where the model comes from, its card, made-up weights
devices   which processor, under which name
child     the process that measures one stage, from outside
run       stages one after the other, shapes within
fit       the two-term law through what was measured
rows      the profiles file
rented    the same on machines rented for it; errand: what runs there; leases: whose they are
"""
