"""Imports run downward only, and each layer uses only the libraries that are its own."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "unalike"

LAYERS = (
    ("errors",),
    ("lazy",),
    ("options", "files", "hub"),
    ("images", "tensors"),
    ("kernels",),
    ("scores",),
    ("metrics", "selection"),
    ("guidance", "tensorfile", "fingerprint"),
    ("memory", "shields"),
    ("extractors",),
    ("attach",),
    ("pipelines",),
    ("models",),
    ("runs",),
    ("cli", "studio"),
    ("__main__",),
)
LIBRARIES = {
    "errors": set(),
    "lazy": set(),
    "options": set(),
    "files": set(),
    "hub": {"huggingface_hub"},
    "images": {"torch", "numpy", "PIL"},
    "tensors": {"torch"},
    "kernels": {"torch"},
    "scores": {"torch"},
    "metrics": {"torch"},
    "selection": {"torch"},
    "guidance": {"torch"},
    "tensorfile": {"torch", "safetensors"},
    "fingerprint": {"torch"},
    "memory": {"torch"},
    "shields": {"torch", "numpy", "safetensors", "pyarrow", "faiss"},
    "attach": {"torch", "diffusers"},
    "pipelines": {"torch", "diffusers", "transformers", "huggingface_hub", "safetensors"},
    "models": {"torch", "numpy", "PIL"},
    "extractors": {"torch", "transformers", "torch_fidelity"},
    "runs": {
        "torch",
        "numpy",
        "PIL",
        "pyarrow",
        "safetensors",
        "dynamicprompts",
        "ray",
        "filelock",
    },
    "cli": {"typer", "rich"},
}
FILES = sorted(
    path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"
)  # that one names everything, and imports it late


def layer(module: str) -> int:
    """The number of the layer of `unalike.NAME…`; 0 for the package itself, which imports nothing
    by itself.
    """
    names = module.split(".")
    return (
        0 if len(names) == 1 else next(i for i, level in enumerate(LAYERS, 1) if names[1] in level)
    )


def home(path: Path) -> str:
    """The first name below the package that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> list[str]:
    """All modules that a file imports, at its top, inside functions and for types."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            inside = [
                f"unalike.{alias.name}"
                for alias in node.names
                if (SOURCE / alias.name).with_suffix(".py").exists()
                or (SOURCE / alias.name / "__init__.py").exists()
            ]
            found += inside if node.module == "unalike" and inside else [node.module or ""]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_run_downward_when_a_file_uses_the_package(path: Path):
    own = layer(f"unalike.{home(path)}")
    for module in imported(path):
        if module.split(".")[0] == "unalike" and module.split(".")[1:2] != [home(path)]:
            assert layer(module) < own, (
                f"{path.relative_to(SOURCE)} imports {module}, which is not below it"
            )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_only_libraries_of_the_layer_are_used_when_a_file_imports(path: Path):
    used = (
        {module.split(".")[0] for module in imported(path)}
        - {"unalike", ""}
        - sys.stdlib_module_names
    )
    assert used <= LIBRARIES.get(home(path), set()), (
        f"{path.relative_to(SOURCE)} may not import {used - LIBRARIES.get(home(path), set())}"
    )


def test_check_sees_an_import_when_it_points_upward(tmp_path: Path):
    (tmp_path / "low.py").write_text(
        "from unalike import memory\n\ndef f():\n    import unalike.cli.app\n"
    )
    assert layer("unalike.memory") < layer("unalike.attach") < layer("unalike.cli.app")
    assert imported(tmp_path / "low.py") == ["unalike.memory", "unalike.cli.app"]


def test_every_library_is_declared_when_the_package_imports_it():
    """A dependency, or an extra that users may install."""
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {name: own for name, own in project["optional-dependencies"].items() if name != "dev"}
    requirements = [*project["dependencies"], *chain.from_iterable(extras.values())]
    declared = {re.split(r"[<>=!~;\[ ]", line)[0] for line in requirements}
    homes = packages_distributions()
    modules = {module.split(".")[0] for path in FILES for module in imported(path)}
    for module in modules - {"unalike", ""} - sys.stdlib_module_names:
        names = {name.lower().replace("_", "-") for name in homes.get(module, [module])}
        assert names & declared, f"{module} is imported, but {names} is not in pyproject.toml"
