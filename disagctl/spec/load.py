"""File to Spec: read, expand the sugar, bind to the schema, make paths absolute, check what types cannot say."""

from pathlib import Path

from disagctl.errors import SpecError
from disagctl.spec.bind import bind, info_of
from disagctl.spec.check import check
from disagctl.spec.locate import absolute
from disagctl.spec.nodes import Map, Node, Problem, Scalar, Seq, shown
from disagctl.spec.schema import Spec
from disagctl.spec.suggest import did_you_mean
from disagctl.spec.yaml_reader import read_text, read_tree


def load_spec(
    path: Path, *, check_files: bool = True, catalog: list[str] | None = None, infra: list[str] | None = None
) -> Spec:
    """Read and check ``path``. Raises SpecError, and nothing else. ``catalog`` and ``infra``: instead of the spec's.

    ``check_files`` False accepts a spec whose local model or CSV files are gone by now: a head that comes back reads its
    own copy so.
    """
    try:
        return _build(read_text(path), path.absolute().parent, check_files, catalog, infra)
    except Problem as err:
        raise SpecError(f"{path}:{err.line}: {err.what}", why=err.why, next=err.next) from err


def parse_spec(text: str, *, base: Path, name: str = "service.yaml", check_files: bool = True) -> Spec:
    """The same for text that is no file yet; relative paths start at ``base``."""
    try:
        return _build(text, base, check_files)
    except Problem as err:
        raise SpecError(f"{name}:{err.line}: {err.what}", why=err.why, next=err.next) from err


def _build(
    text: str, base: Path, check_files: bool, catalog: list[str] | None = None, infra: list[str] | None = None
) -> Spec:
    root = read_tree(text)
    tree = _expand(root)
    spec: Spec = bind(tree, info_of(Spec), "")
    absolute(spec, base)
    spec.catalog = catalog or spec.catalog
    spec.infra = infra or spec.infra
    check(spec, tree, check_files=check_files)
    return spec


def _expand(root: Map) -> Map:
    """``model: {…}`` is one entry of ``models``, and one infra or catalog needs no list. Lines stay what they are."""
    items: dict[str, Node] = dict(root.items)
    lines = dict(root.lines)
    if "model" in items and "models" in items:
        raise Problem(
            lines["models"], "model and models exclude each other", "model is short for models with one entry"
        )
    if "model" in items:
        model, lines["models"] = items.pop("model"), lines["model"]
        if isinstance(model, Scalar) and model.text:  # model: black-forest-labs/FLUX.1-schnell
            model = Map({"id": model}, {"id": model.line}, model.line)
        items["models"] = Seq([model], model.line)
    known = ["model", *(field.encode_name for field in info_of(Spec).fields)]
    for key in items:
        if key not in known:
            raise Problem(lines[key], f"unknown key {shown(key)}", did_you_mean(key, known))
    if "models" not in items:
        raise Problem(root.line, "the key 'model' is missing", "which model shall the service serve?")
    for key in ("infra", "catalog"):
        one = items.get(key)
        if isinstance(one, Scalar):
            items[key] = Seq([] if one.plain and one.value is None else [one], one.line)
    return Map(items, lines, root.line)
