"""Tree to structs: every value checked against the schema's types, every complaint with its line.

msgspec could convert, but knows no lines; so its description of the types is walked beside the tree.
"""

from functools import cache
from typing import Any, Final

from msgspec import NODEFAULT, inspect

from disagctl.spec import units
from disagctl.spec.nodes import Map, Node, Problem, Scalar, Seq, kind, plain, shown
from disagctl.spec.suggest import did_you_mean

_SCALARS: Final = (inspect.BoolType, inspect.IntType, inspect.FloatType, inspect.LiteralType, inspect.StrType)


@cache
def info_of(cls: type) -> inspect.StructType:
    """The type's description."""
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)  # noqa: S101 -- only called with structs
    return info


def bind(node: Node, info: inspect.Type, name: str) -> Any:
    """The value of ``node`` as ``info`` describes it. ``name``: its key, for messages. Raises Problem."""
    match info:
        case inspect.Metadata():
            unit = (info.extra or {}).get("unit")
            return _unit(node, unit, name) if unit else bind(node, info.type, name)
        case inspect.StructType():
            return _struct(node, info, name)
        case inspect.UnionType():
            return _union(node, info, name)
        case inspect.ListType():
            if not isinstance(node, Seq):
                raise _wanted(node, name, "a list")
            return [bind(item, info.item_type, name.removesuffix("s")) for item in node.items]
        case inspect.DictType():
            if not isinstance(node, Map):
                raise _wanted(node, name, "a mapping")
            return {key: bind(value, info.value_type, key) for key, value in node.items.items()}
        case inspect.AnyType():
            return plain(node)
        case _:
            return _scalar(node, info, name)


def _struct(node: Node, info: inspect.StructType, name: str) -> Any:
    if not isinstance(node, Map):
        raise _wanted(node, name, "a mapping")
    fields = {field.encode_name: field for field in info.fields}
    for key in node.items:
        if key not in fields:
            place = f" in {name}" if name else ""
            raise Problem(node.lines[key], f"unknown key {shown(key)}{place}", did_you_mean(key, fields))
    values = {}
    for key, field in fields.items():
        if key in node.items:
            values[field.name] = bind(node.items[key], field.type, key)
        elif field.default is NODEFAULT and field.default_factory is NODEFAULT:
            raise Problem(node.line, f"the key {key!r} is missing{f' in {name}' if name else ''}")
    return info.cls(**values)


def _union(node: Node, info: inspect.UnionType, name: str) -> Any:
    nothing = isinstance(node, Scalar) and node.plain and node.value is None
    if nothing and info.includes_none:
        return None
    options = [option for option in info.types if not isinstance(option, inspect.NoneType)]
    fitting = [option for option in options if _fits(node, option)]
    problem: Problem | None = None
    for option in fitting:
        try:
            return bind(node, option, name)
        except Problem as err:
            problem = problem or err
    raise problem or _wanted(node, name, " or ".join(_words(option) for option in options))


def _fits(node: Node, info: inspect.Type) -> bool:
    """Whether the node is of the right kind at all."""
    if isinstance(info, inspect.Metadata):
        return _fits(node, info.type)
    if isinstance(node, Seq):
        return isinstance(info, inspect.ListType)
    if isinstance(node, Map):
        return isinstance(info, inspect.StructType | inspect.DictType)
    return isinstance(info, _SCALARS)


def _unit(node: Node, unit: str, name: str) -> Any:
    if not isinstance(node, Scalar):
        raise _wanted(node, name, "text with a unit")
    try:
        return units.parse(unit, node.text)
    except ValueError as err:
        raise Problem(node.line, f"{name}: {kind(node)} will not do", str(err)) from err


def _scalar(node: Node, info: inspect.Type, name: str) -> Any:
    if not isinstance(node, Scalar):
        raise _wanted(node, name, _words(info))
    if isinstance(info, inspect.LiteralType):
        if node.text not in info.values:
            why = did_you_mean(node.text, [str(value) for value in info.values])
            raise Problem(node.line, f"{name} cannot be {kind(node)}", why)
        return node.text
    value = node.value
    if isinstance(info, inspect.StrType):
        if value is None or not node.text:
            raise _wanted(node, name, "text")
        return node.text  # as written: a commit such as 1234567 stays what it is
    if isinstance(info, inspect.BoolType):
        if not isinstance(value, bool):
            raise _wanted(node, name, "true or false")
        return value
    return _number(node, value, info, name)


def _number(node: Scalar, value: Any, info: inspect.Type, name: str) -> int | float:
    whole = isinstance(info, inspect.IntType)
    allowed = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, allowed):
        raise _wanted(node, name, _words(info))
    low, above = getattr(info, "ge", None), getattr(info, "gt", None)
    high = getattr(info, "le", None)
    if (low is not None and value < low) or (above is not None and value <= above):
        bound = f"more than {above}" if above is not None else f"at least {low}"
        raise Problem(node.line, f"{name} cannot be {value}", f"it is {bound}")
    if high is not None and value > high:
        raise Problem(node.line, f"{name} cannot be {value}", f"it is at most {high}")
    return value if whole else float(value)


def _wanted(node: Node, name: str, wanted: str) -> Problem:
    return Problem(node.line, f"{name or 'this'} should be {wanted}", f"found {kind(node)}")


def _words(info: inspect.Type) -> str:
    match info:
        case inspect.Metadata():
            return _words(info.type)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "a whole number"
        case inspect.FloatType():
            return "a number"
        case inspect.ListType():
            return "a list"
        case inspect.StructType() | inspect.DictType():
            return "a mapping"
        case inspect.LiteralType():
            return " or ".join(str(value) for value in info.values)
        case _:
            return "text"
