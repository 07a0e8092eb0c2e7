"""``any_of`` and ``ordered`` hold resources again: the same keys, the same types."""

from disagctl.spec.bind import bind, info_of
from disagctl.spec.nodes import Map, Problem, line_of, node_at
from disagctl.spec.schema import Resources, Spec

_NESTING = ("any_of", "ordered")


def check_resources(spec: Spec, tree: Map) -> None:
    """Raises Problem for the first entry that is none."""
    for key, wish in spec.stages.items():
        for name in _NESTING:
            variants = getattr(wish.resources, name)
            path = ("stages", key, "resources", name)
            if variants is not None and not variants:
                raise Problem(line_of(tree, *path), f"{name} is empty", next="leave it out")
            for index in range(len(variants or ())):
                made = bind(node_at(tree, *path, index), info_of(Resources), name)
                if any(getattr(made, nested) is not None for nested in _NESTING):
                    raise Problem(line_of(tree, *path, index), f"{name} cannot hold any_of or ordered")
