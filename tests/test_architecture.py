"""The house: lower floors never import higher ones, and the command line starts without torch."""

import ast
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import recurlab

SOURCE = Path(recurlab.__file__).parent
# From the ground up. A module may import its own floor and those below.
FLOORS = [
    ["errors", "former", "locks", "parents", "files", "foreign", "caches", "lazy", "plugins", "process", "imports"],
    ["schema", "table"], ["cells"], ["fuse"], ["backends"], ["layers"], ["models"], ["interop", "deploy"], ["data"],
    ["problems"],
    # `choices` knows the names of everything that can be chosen: loggers and launchers too, never their code.
    ["choices"], ["config"], ["sources"], ["compose"], ["completion"],
    ["training"], ["results"], ["bench"], ["launch"],
    ["sweep", "studies"],
    ["cli", "__main__"],
]  # fmt: skip
HEIGHT = {name: height for height, names in enumerate(FLOORS) for name in names}
NAMES_ONLY = {("choices", "recurlab.training"), ("choices", "recurlab.launch")}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports_of(path: Path) -> list[str]:
    nodes = ast.walk(parsed(path))
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


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported_by(path: Path, known: set[str]) -> set[str]:
    """Return the modules that a file imports, those inside of functions and for types alone included."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= full & known or {str(node.module)}
    return found & known


def circles(graph: dict[str, set[str]]) -> set[tuple[str, ...]]:
    """Return the sets of modules each of which needs all others of its set."""

    def reached(start: str) -> set[str]:
        found, left = set[str](), [start]
        while left:
            new = graph[left.pop()] - found
            found |= new
            left += new
        return found

    reach = {module: reached(module) for module in graph}
    same = {module: sorted(other for other in reach[module] if module in reach[other]) for module in graph}
    return {tuple(members) for members in same.values() if members}


def test_no_modules_import_each_other_in_a_circle():
    known = {module_of(path) for path in MODULES}
    assert circles({module_of(path): imported_by(path, known) for path in MODULES}) == set()


def test_a_circle_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}, "e": set()}) == {("b", "c")}


@pytest.mark.parametrize(("call", "module"), [("import fcntl", "locks"), (".prctl(", "parents"), ("getppid", None)])
def test_a_call_of_the_system_stands_in_one_module(call, module):
    found = {module_of(path) for path in MODULES if call in path.read_text()}
    assert found == ({f"recurlab.{module}"} if module else set())


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


@cache
def answer(*arguments: str) -> tuple[int, str, float]:
    """Return the exit code of a command, what it says of errors, and the processor's time: nothing here waits."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", CHECK, *arguments], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.returncode, done.stderr, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


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
    found, said, _ = answer(*arguments)
    assert found == code, said


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["report", "--help"], ["generate", "--help"], ["train", "model.hiden_size=3"]],
)
def test_help_and_wrong_configs_answer_in_under_a_second(arguments):
    assert any(take(*arguments)[2] < 1 for take in (answer, *[answer.__wrapped__] * 2))


def test_no_config_names_a_class_to_instantiate():
    texts = [path.read_text() for path in (SOURCE.parents[1] / "configs").rglob("*.yaml")]
    assert texts
    assert not [text for text in texts if "_target" + "_" in text]
