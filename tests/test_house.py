"""The house: which module may import which, a method that names no world, and no file too long to read."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "armap_lite"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
CONTRACTS = ("envs.base", "envs.hindsight", "llms.base")
FOUNDATION = ("trajectory", "storage", "rng", *CONTRACTS)
# In the order of the data: each may import those before it.
STAGES = ("batching", "episode", "agent", "changes", "collect", "synthesize", "planners", "control")
ENGINE = (
    *("llms.forest", "llms.tree", "llms.plain", "llms.layers", "llms.tokens", "llms.device"),
    *("llms.prefixes", "llms.memory"),  # of training
)
EVERYTHING = tuple(name.partition(".")[0] for name in MODULES)
# Module or folder: what it may import besides itself.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("__init__", "rng", "storage"), ()),
    "trajectory": ("storage",),
    "envs": ("trajectory", "storage", "rng"),
    "llms": ("storage", "rng"),
    "vision": ("trajectory", "llms.tokens", "storage"),
    # `reward.load` also reads reward models that others trained.
    "reward": ("trajectory", *ENGINE, "vision", "storage", "exchange.finished"),
    **{stage: (*FOUNDATION, *STAGES[:i]) for i, stage in enumerate(STAGES)},
    "statistics": (*FOUNDATION, *STAGES),
    "evaluate": (*FOUNDATION, *STAGES, "statistics"),
    "exchange": ("trajectory", "storage", "vision", "llms", "reward", "statistics"),
    **dict.fromkeys(("pipeline", "display", "course", "__main__"), EVERYTHING),
}
NO_TORCH = ("torch", "transformers", "lightning", "peft", "safetensors")  # not in stages, nor in evaluation
METHOD = [path for path in MODULES.values() if path.parent in (PACKAGE, PACKAGE / "reward", PACKAGE / "planners")]
METHOD += [MODULES[name] for name in CONTRACTS]


def imports(path: Path) -> Iterator[str]:
    """The full name of everything that a file imports, also inside functions; of `from a import b`, `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            home, _, module = str(node.module).partition(".")
            assert home != "armap_lite" or not module or module in MODULES, f"{path}: there is no {node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_row_of_the_table_allows(module: str):
    row = module.partition(".")[0]
    allowed = (row, *MAY_IMPORT[row])
    foreign = NO_TORCH if row in (*STAGES, "statistics", "evaluate") else ()
    for name in imports(MODULES[module]):
        own = name.removeprefix("armap_lite.")
        assert own == name or within(own, allowed), f"{module} may not import {own}"
        assert not within(name, foreign), f"{module} may not import {name}"


def test_the_table_has_no_row_without_a_module():
    assert {name.partition(".")[0] for name in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", METHOD, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_method_names_no_world(path: Path):
    assert not re.findall("game24|scienceworld|webshop", path.read_text(encoding="utf-8"), re.IGNORECASE)


@pytest.mark.parametrize("path", MODULES.values(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_is_longer_than_400_lines(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
