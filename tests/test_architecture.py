"""The house: lower floors never import higher ones, and the command line starts without torch."""

import ast
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import recurlab

SOURCE = Path(recurlab.__file__).parent
# From the ground up. A module may import its own floor and those below.
FLOORS = [
    ["atomic", "errors", "foreign", "caches", "lazy", "plugins", "process", "schema"], ["table"], ["cells"], ["fuse"],
    ["backends"], ["layers"], ["models"], ["data"], ["problems"],
    # `config` knows the names of everything that can be chosen: loggers and launchers too, never their code.
    ["config"], ["compose"], ["training"], ["results", "interop", "deploy"], ["bench"], ["launch"],
    ["sweep", "studies"],
    ["cli", "__main__"],
]  # fmt: skip
HEIGHT = {name: height for height, names in enumerate(FLOORS) for name in names}
NAMES_ONLY = {("config", "recurlab.training"), ("config", "recurlab.launch")}


def imports_of(path: Path) -> list[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return [
        name
        for node in nodes
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        if name.startswith("recurlab.")
    ]


MODULES = [path for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_imports_no_higher_floor(path):
    floor = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    for name in imports_of(path):
        target = name.split(".")[1]
        if (floor, name) not in NAMES_ONLY:
            assert HEIGHT[target] <= HEIGHT[floor], f"{path} imports {name}"


def test_every_module_belongs_to_a_floor():
    found = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in MODULES}
    assert found == set(HEIGHT)


@pytest.mark.parametrize("package", ["training", "launch"])
def test_names_stand_apart_from_their_code(package):
    assert imports_of(SOURCE / package / "__init__.py") == ["recurlab.table"]


COMMAND = (
    "import sys; from recurlab.cli import main\ntry: code = main(sys.argv[1:])\nexcept SystemExit as e: code = e.code\n"
)
CHECK = COMMAND + "assert 'torch' not in sys.modules; sys.exit(code)"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["train", "--help"], 0), (["train", "model.hiden_size=3"], 2), (["train", "model.zoneout=2"], 2),
     (["completion", "bash"], 0), (["_complete", "recurlab train cell="], 0),
     (["report", "--help"], 0), (["generate", "--help"], 0), (["generate", "nowhere"], 2), (["report", "nowhere"], 2),
     (["_complete", "recurlab generate --t"], 0),
     (["export", "--help"], 0), (["export", "nowhere", "a.onnx"], 2), (["export", "nowhere", "a.onx"], 2),
     (["bench", "--help"], 0), (["bench", "cells=gruu"], 2), (["_complete", "recurlab bench cells=gru,"], 0)],
)  # fmt: skip
def test_help_and_wrong_configs_answer_without_torch(arguments, code):
    done = subprocess.run([sys.executable, "-c", CHECK, *arguments], capture_output=True, text=True)
    assert done.returncode == code, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["report", "--help"], ["generate", "--help"], ["train", "model.hiden_size=3"]],
)
def test_help_and_wrong_configs_answer_in_under_a_second(arguments):
    def seconds() -> float:
        """Return the processor's time, which no other process lengthens; nothing here waits."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", COMMAND, *arguments], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 1


def test_no_config_names_a_class_to_instantiate():
    texts = [path.read_text() for path in (SOURCE.parents[1] / "configs").rglob("*.yaml")]
    assert texts
    assert not [text for text in texts if "_target" + "_" in text]
