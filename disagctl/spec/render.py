"""Spec to YAML, and the schema of the YAML for editors."""

from typing import Any, Final

import msgspec
import yaml
from msgspec import inspect

from disagctl.spec import units
from disagctl.spec.bind import info_of
from disagctl.spec.nodes import Problem, resolve
from disagctl.spec.schema import Spec

SCHEMA_ID: Final = "https://json-schema.org/draft/2020-12/schema"


class _Dumper(yaml.SafeDumper):
    """Quotes every text that our reader would take for something else, and never writes an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        """There are none in our dialect."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    try:
        odd = not isinstance(resolve(text), str)
    except Problem:
        odd = True
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if odd and text.isprintable() else None)


_Dumper.add_representer(str, _text)


def dump_spec(spec: Spec) -> str:
    """YAML that ``load_spec`` reads back as an equal Spec, wherever it lies: paths are absolute, nothing is left out."""
    data = _builtins(spec, info_of(Spec))
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _builtins(value: Any, info: inspect.Type) -> Any:
    match info:
        case inspect.Metadata():
            unit = (info.extra or {}).get("unit")
            return units.show(unit, value) if unit else _builtins(value, info.type)
        case inspect.StructType():
            pairs = ((field, getattr(value, field.name)) for field in info.fields)
            written = ((field, item) for field, item in pairs if item is not None or _can_be_never(field.type))
            return {field.encode_name: _builtins(item, field.type) for field, item in written}
        case inspect.UnionType() if isinstance(value, msgspec.Struct):
            return _builtins(value, info_of(type(value)))
        case inspect.UnionType():
            unit = next((i for i in info.types if isinstance(i, inspect.Metadata) and i.extra), None)
            return _builtins(value, unit) if unit is not None else value
        case inspect.ListType():
            return [_builtins(item, info.item_type) for item in value]
        case inspect.DictType():
            return {key: _builtins(item, info.value_type) for key, item in value.items()}
        case _:
            return value


def _can_be_never(info: inspect.Type) -> bool:
    return isinstance(info, inspect.Metadata) and (info.extra or {}).get("unit") == "duration_or_never"


def json_schema() -> dict[str, Any]:
    """JSON Schema of service.yaml."""
    schema = msgspec.json.schema(Spec)
    definitions = schema["$defs"]
    for definition in definitions.values():
        for key, prop in definition.get("properties", {}).items():
            definition["properties"][key] = _property(prop)
    for name in ("Range", "Size"):
        definitions.pop(name, None)
    root = definitions.pop("Spec")
    shorthand = {"oneOf": [{"$ref": "#/$defs/ModelEntry"}, {"type": "string"}]}
    root["properties"] = {"name": root["properties"].pop("name"), "model": shorthand, **root["properties"]}
    root["properties"]["infra"] = {"anyOf": [{"type": "string"}, root["properties"]["infra"]], "default": "local"}
    root["properties"]["catalog"] = {"anyOf": [{"type": "string"}, root["properties"]["catalog"]], "default": "shipped"}
    root["required"] = ["name"]
    root["oneOf"] = [{"required": ["model"]}, {"required": ["models"]}]
    return {"$schema": SCHEMA_ID, **root, "title": "disagctl service.yaml", "$defs": definitions, "schema_version": 1}


def _property(prop: dict[str, Any]) -> dict[str, Any]:
    """Quantities are text with a unit for the user, whatever they are for us."""
    branches = prop.get("anyOf")
    if isinstance(branches, list):
        prop["anyOf"] = [_property(branch) for branch in branches]
    unit = prop.pop("x-unit", None)
    if unit is None:
        return prop
    kept = {"type": prop["x-type"], "examples": prop["examples"]}
    if "default" in prop and (prop["default"] is not None or unit == "duration_or_never"):
        kept["default"] = _default(unit, prop["default"])
    return kept


def _default(unit: str, value: Any) -> Any:
    if isinstance(value, dict):
        value = units.Range(**value)
    return units.show(unit, value)
