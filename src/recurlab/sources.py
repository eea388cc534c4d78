"""Where the options of a config's groups come from: YAML files, the package's and the user's, and tables of names."""

import filecmp
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from recurlab.choices import CHOICES
from recurlab.errors import RecurlabError, path_of, shown
from recurlab.plugins import CONFIG_DIR, import_plugins
from recurlab.schema import read_yaml

OWN = Path("configs")  # of the user, in the current folder
APART = "sweep"  # a folder of configs that are not parts of a run's
GROUPS = ("data", "cell", "optimizer", "scheduler", "logger", "launcher")  # which are choices of `CHOICES`
FORMER = {"task": "data"}  # groups by their names of before, and those that they have now
PROVIDER = "recurlab"  # of what is put into Hydra's store here


@cache
def configs_dir() -> Path:
    """Return the folder of the package's YAML files: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parents[1] / "configs"


def own_configs() -> Path | None:
    """Return the folder of the user's YAML files: that of --config-dir, or ./configs; None where there is none.

    Raises:
        RecurlabError: for a --config-dir that is no folder.
    """
    if given := os.environ.get(CONFIG_DIR):
        path = path_of("--config-dir", given)
        if not path.is_dir():
            raise RecurlabError(f"--config-dir={shown(given)}: there is no such folder")
        return path.absolute()
    return OWN.absolute() if OWN.is_dir() and OWN.resolve() != configs_dir() else None


def files(group: str) -> dict[str, Path]:
    """Return the YAML files of a group by the names of their options; of two of one name the package's.

    Args:
        group: a folder of configs; the user's files may also be in one of its name of before.
    """
    return dict(sorted({**_own_files(group), **_package_files(group)}.items()))


def groups() -> dict[str, list[str]]:
    """Return the options of each config group: those with a YAML file, and the names in the group's table."""
    folders = {path.name for path in configs_dir().iterdir() if path.is_dir()} - {APART}
    return {group: sorted({*files(group), *_names(group)}) for group in sorted({*folders, *GROUPS})}


def check_unambiguous(group: str, option: str) -> None:
    """Raise where an option that is asked for has two YAML files that differ, the package's and one of the user."""
    own, ours = _own_files(group).get(option), configs_dir() / group / f"{option}.yaml"
    if own and ours.is_file() and not filecmp.cmp(own, ours, shallow=False):
        raise RecurlabError(f"{group}={option!r}: recurlab has one of this name; give {str(own)!r} another")


def import_plugins_of(experiment: str) -> None:
    """Import the plugins that an experiment names, and those that the experiments name which it is made from."""
    waiting, known = [experiment], files("experiment")
    for name in waiting:
        if name not in known:
            continue  # which is said with all that Hydra does not find
        content = read_yaml(known[name])
        if content.get("plugins") is not None:
            import_plugins(content.plugins)
        parts = [part.removeprefix("/experiment/") for part in content.get("defaults") or () if isinstance(part, str)]
        waiting += [part for part in parts if part not in waiting]


@contextmanager
def hydra(overrides: Iterable[str] = ()) -> Iterator[list[str]]:
    """Let Hydra find all options; give the overrides with which it has to compose."""
    own = own_configs()
    _store()
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        yield [*([f"hydra.searchpath=[{_quoted(f'file://{own}')}]"] if own else []), *overrides]


@cache
def _package_files(group: str) -> dict[str, Path]:
    return _files(configs_dir() / group)


def _own_files(group: str) -> dict[str, Path]:
    own = own_configs()
    return {**_former_files(group), **_files(own / group)} if own else {}


def _former_files(group: str) -> dict[str, Path]:
    """Return the user's files of a group in folders of its names of before."""
    own, former = own_configs(), [name for name, now in FORMER.items() if now == group]
    return {option: path for name in former for option, path in _files(own / name).items()} if own else {}


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.yaml")}


def _names(group: str) -> list[str]:
    return list(CHOICES[group]) if group in GROUPS else []


def _store() -> None:
    """Give Hydra what it does not find as a file: names without one, and files in folders of former names.

    Of a name that is in both it would merge the two.
    """
    store = ConfigStore.instance()
    for group in GROUPS:
        kept, known = store.repo.get(group, {}), files(group)
        for name in [name for name, node in kept.items() if getattr(node, "provider", None) == PROVIDER]:
            del kept[name]
        nodes = {name: OmegaConf.create({"name": name}) for name in {*_names(group)} - {*known}}
        for name, path in _former_files(group).items():
            if known[name] == path:
                with suppress(RecurlabError):  # of a file that can't be read; whoever chooses it is told
                    nodes[name] = read_yaml(path)
        for name, node in nodes.items():
            store.store(name, node, group=group, provider=PROVIDER)


def _quoted(text: str) -> str:
    """Return a text as an override has to hold it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
