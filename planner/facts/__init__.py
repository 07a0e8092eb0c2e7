"""What is known: offers, profiles, service times, demand. Parses text it is handed; ``name`` is the file's, for messages."""

from planner.facts.catalog import parse_catalog, parse_gpus
from planner.facts.demand import parse_trace, workload_of
from planner.facts.perf import Book
from planner.facts.profiles import parse_profiles

__all__ = ["Book", "parse_catalog", "parse_gpus", "parse_profiles", "parse_trace", "workload_of"]
