"""From a spec and its files to a plan: everything between the user and the pure planner.

    gather(path, options) -> Inputs         reads spec, catalog, profiles and configs; SpecError for what is wrong in them
    solve(Job, limit_s) -> Answer           in a process of its own: a time limit that holds, and Ctrl-C that ends it
    document(Inputs, Plan | Infeasible)     what ``disagctl plan -o json`` prints

Imports stay light: numpy and the solver are loaded in the solver's process only.
"""
