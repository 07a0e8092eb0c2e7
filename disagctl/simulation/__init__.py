"""``disagctl simulate``: from a spec, a trace and timings to scenarios of :mod:`planner.sim`, and from runs to documents."""
