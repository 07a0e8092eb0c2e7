"""service.yaml: what a user wishes for, read into a validated :class:`Spec`.

    load_spec(path) -> Spec          SpecError, beginning with file:line, for anything else
    dump_spec(spec) -> str           YAML that load_spec accepts back, with absolute paths
    json_schema() -> dict            for editors

Reading never executes, never follows an alias and is bounded in size, depth and number of nodes.
"""

from disagctl.spec.load import load_spec, parse_spec
from disagctl.spec.render import dump_spec, json_schema
from disagctl.spec.schema import ModelEntry, Spec

__all__ = ["ModelEntry", "Spec", "dump_spec", "json_schema", "load_spec", "parse_spec"]
