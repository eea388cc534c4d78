"""What documents, docstrings and comments name is there: files, folders, headings, modules and what is in them."""

import re
from functools import cache
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
PAGES = [*TOP.glob("*.md"), *TOP.glob("experiments/*/*.md")]
SOURCES = [
    path
    for folder in ("src", "configs", "scripts", ".github")
    for path in (TOP / folder).rglob("*")
    if path.suffix in (".py", ".h", ".yaml", ".yml", "") and path.is_file()
]
LINK = re.compile(r"\]\(([^)\s:#]*)(?:#([^)\s]+))?\)")
FOLDERS = ("configs", "experiments", "scripts", "src", "tests")
FILE = re.compile(rf"(?<![\w./<-])((?:{'|'.join(FOLDERS)})/[\w./-]*+)(?<=\w)(?![*<{{$])")
DOTTED = re.compile(r"(?<![\w./@-])recurlab((?:\.[A-Za-z]\w*)+)")
TO_BE_MADE = [
    "configs/experiment/mine.yaml",
    *re.findall(r"^One file, `(.+)`", (TOP / "CONTRIBUTING.md").read_text(), re.MULTILINE),
]
NOT_MODULES = {
    "recurlab.benchmarks",  # a group of entry points
    *(path.removeprefix("src/").removesuffix(".py").replace("/", ".") for path in TO_BE_MADE),
}


@cache
def headings(page: Path) -> set[str]:
    lines = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


@cache
def names_in(module: Path) -> set[str]:
    defined = r'\b(?:class|def|import|as) (\w+)|^\s*(\w+)\s*[=:]|^\s*"(\w+)"'
    return {name for names in re.findall(defined, module.read_text(), re.MULTILINE) for name in names if name}


@cache
def is_there(dotted: str) -> bool:
    """Return whether a module is there, and what is named in it."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        place = TOP.joinpath("src", *parts[:count])
        for module in (place.with_suffix(".py"), place / "__init__.py"):
            if module.is_file():
                return count == len(parts) or parts[count] in names_in(module)
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_the_links_of_a_page_lead_somewhere(page):
    for target, heading in LINK.findall(page.read_text()):
        path = page.parent / target if target else page
        assert path.exists(), target
        assert not heading or heading in headings(path), f"{target}#{heading}"


def test_the_files_and_modules_that_are_named_are_there():
    dead = []
    for path in (*PAGES, *SOURCES):
        text = path.read_text()
        dead += [f"{path}: {name}" for name in {*FILE.findall(text)} - {*TO_BE_MADE} if not (TOP / name).exists()]
        dotted = {f"recurlab{rest}" for rest in DOTTED.findall(text)} - NOT_MODULES
        dead += [f"{path}: {name}" for name in dotted if not is_there(name)]
    assert dead == []
