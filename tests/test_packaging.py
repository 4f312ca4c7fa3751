"""What ships is what is on disk, and the public names are the promised ones."""

import tomllib
from pathlib import Path

import shrinkc

ROOT = Path(__file__).resolve().parent.parent


def test_every_package_on_disk_ships() -> None:
    """A forgotten subpackage imports in an editable install and is missing from the wheel."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    on_disk = {"shrinkc"}
    for top in ("compiler", "passes", "latency_tables"):
        for file in (ROOT / top).rglob("*.py"):
            on_disk.add(".".join(("shrinkc", *file.parent.relative_to(ROOT).parts)))
    assert set(tool["packages"]) == on_disk
    assert all((ROOT / folder).is_dir() for folder in tool["package-dir"].values())


def test_every_file_of_the_compiler_ships() -> None:
    """What is no Python has to be named."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for file in (ROOT / "compiler").rglob("*.*"):
        if file.suffix not in (".py", ".pyc"):
            patterns = tool["package-data"][
                ".".join(("shrinkc", *file.parent.relative_to(ROOT).parts))
            ]
            assert any(file.match(pattern) for pattern in patterns), file


def test_public_names() -> None:
    functions = {
        *("apply", "bench", "calibrate", "capture", "compare", "compile", "estimate", "frontier"),
        *("inspect", "load", "load_table", "plan", "plan_for", "plan_worst_case", "profile"),
        *("prune", "save", "sensitivity"),
        *("shrink", "tables"),
    }
    types = {
        *("Classification", "Dense", "Detection", "Embedding", "Format", "Goal", "ImageFolder"),
        *("ModelFile", "Ray", "Recipe", "Regression", "Segmentation", "ShrinkcError", "Task"),
        "__version__",
    }
    assert set(shrinkc.__all__) == functions | types
    assert all(getattr(shrinkc, name) is not None for name in shrinkc.__all__)
    assert set(shrinkc.__all__) <= set(dir(shrinkc))


def test_version_is_stated_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == shrinkc.__version__
