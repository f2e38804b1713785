"""The order of the layers, read from every module's imports, those inside functions included."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mos_pipeline

PACKAGE = Path(mos_pipeline.__file__).parent
GROUND = {"errors", "config", "messages", "logs"}
BELOW_STAGES = {"runtime", "store", "memory"}
# What each layer may import of the package, itself aside. "door" is the package's own __init__.
MAY_IMPORT = {
    "errors": set[str](),
    "logs": set[str](),
    "config": {"errors"},
    "messages": {"errors", "config"},
    "metrics": GROUND,
    "testing": set(),
    "memory": GROUND,
    "store": GROUND,
    "runtime": GROUND,
    "ingest": GROUND | {"memory", "legacy"},
    "legacy": GROUND | {"memory"},
    "stages": GROUND | BELOW_STAGES,
    "engine": GROUND | BELOW_STAGES | {"stages", "metrics"},
    "arguments": GROUND | {"memory"},
    "answering": GROUND | {"memory"},
    "reading": GROUND | BELOW_STAGES | {"metrics", "engine", "arguments"},
    "responding": GROUND | {"memory", "engine", "arguments", "reading", "answering"},
    "service": GROUND | {"store", "metrics"},
    "pipeline": GROUND
    | BELOW_STAGES
    | {"stages", "metrics", "engine", "ingest", "arguments", "reading", "responding", "service"},
    "migration": GROUND | {"memory", "legacy", "engine", "reading", "pipeline"},
    "exporting": GROUND | {"memory", "legacy", "engine"},
    "memoryos": GROUND | {"memory", "store", "legacy", "engine", "arguments", "answering", "pipeline"},
    "doctor": GROUND | BELOW_STAGES | {"stages", "service"},
    "door": GROUND | {"metrics", "pipeline", "responding", "memoryos"},
    "cli": GROUND
    | BELOW_STAGES
    | {"stages", "metrics", "engine", "ingest", "service"}
    | {"pipeline", "doctor", "door", "legacy", "migration", "exporting"},
    "__main__": {"cli"},
}
HEAVY = {"torch", "sentence_transformers", "transformers", "openai", "openvino", "nncf", "onnxruntime", "optimum"}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def layer_of(dotted: str) -> str:
    """Return the layer of ``mos_pipeline.layer.module``."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "door"


def name_of(module: Path) -> str:
    parts = ["mos_pipeline", *module.with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_in(source: str, module: Path = Path("x.py")) -> Iterator[str]:
    """Yield the full names that ``source`` imports; ``from a import b`` gives a.b, as b may be a module."""
    package = name_of(module.parent / "__init__.py").split(".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def targets_in(source: str, module: Path) -> set[str]:
    """Return the layers that ``source`` imports from; a name that the package's __init__ defines is the door's."""
    layers = set()
    for name in imports_in(source, module):
        if name.split(".")[0] == "mos_pipeline":
            path = PACKAGE.joinpath(*name.split(".")[1:2])
            inside = path.is_dir() or path.with_suffix(".py").is_file()
            layers.add(layer_of(name) if inside else "door")
    return layers


def runs_later(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.If) -> bool:
    """Tell whether importing a module passes this body by."""
    return not isinstance(node, ast.If) or ast.unparse(node.test) == "TYPE_CHECKING"


def test_the_table_allows_no_circles() -> None:
    order: list[str] = []
    while len(order) < len(MAY_IMPORT):
        free = [layer for layer, below in MAY_IMPORT.items() if layer not in order and below <= set(order)]
        assert free, f"these layers import one another: {sorted(set(MAY_IMPORT) - set(order))}"
        order += free


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_imports_downwards_only(module: Path) -> None:
    layer = layer_of(name_of(module))
    assert layer in MAY_IMPORT, f"{module}: a new layer; give it a place in the table above"
    found = targets_in((PACKAGE / module).read_text(encoding="utf-8"), module) - {layer}
    assert found <= MAY_IMPORT[layer], f"{module} may not import {sorted(found - MAY_IMPORT[layer])}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_heavy_libraries_are_for_stages_inside_functions(module: Path) -> None:
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    everywhere = {name.split(".")[0] for name in imports_in(ast.unparse(tree))} & HEAVY
    assert not everywhere or layer_of(name_of(module)) == "stages", f"{module} imports {sorted(everywhere)}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.If) and runs_later(node):
            node.body = [ast.Pass()]
    loaded = {name.split(".")[0] for name in imports_in(ast.unparse(tree))} & HEAVY
    assert not loaded, f"{module} imports {sorted(loaded)} when it is imported; do it inside the function"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import mos_pipeline.store.journal", {"store"}),
        ("from mos_pipeline.memory import words", {"memory"}),
        ("from mos_pipeline import config", {"config"}),
        ("from mos_pipeline import Anything", {"door"}),
        ("import mos_pipeline", {"door"}),
        ("def f():\n    from mos_pipeline.stages.tasks import TaskStage", {"stages"}),
        ("from . import tasks", {"stages"}),
        ("from .tasks import TaskStage", {"stages"}),
        ("from .. import errors", {"errors"}),
        ("from ..store import journal", {"store"}),
        ("import numpy, mos_pipelines", set()),
    ],
)
def test_every_way_to_import_is_seen(source: str, expected: set[str]) -> None:
    assert targets_in(source, Path("stages/extractive.py")) == expected


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter holds after ``statement``."""
    program = f"import sys\n{statement}\nsys.stdout.write(' '.join(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(result.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = loaded_by("import mos_pipeline")
    assert "mos_pipeline" in loaded
    assert not loaded & HEAVY


def test_importing_every_module_but_the_entry_point_loads_nothing_heavy() -> None:
    names = [name_of(module) for module in MODULES if module.name != "__main__.py"]
    loaded = loaded_by("import " + ", ".join(names))
    assert set(names) <= loaded
    assert not loaded & HEAVY
