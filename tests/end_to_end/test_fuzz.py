"""Whatever a config says, it trains a step or is refused in one line; nothing else is ever seen of it."""

import contextlib
import dataclasses
import io
import json
import re
import shutil
import string
import sys
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import MISSING, OmegaConf

from recurlab.choices import CHOICES, schema_at
from recurlab.cli import main
from recurlab.compose import compose
from recurlab.config import load
from recurlab.errors import RecurlabError
from recurlab.sources import groups

# Said of a dropout between layers where there is one layer; which key is drawn is left to chance.
pytestmark = [
    pytest.mark.filterwarnings("ignore:dropout=.* has no effect:UserWarning"),
    pytest.mark.usefixtures("quick_kernels"),  # of any cell
]
OPTIONS = groups()  # before other tests register names of their own
# Options and values that would take other machines or processes, a service, or minutes.
GROUPS = {"backend": ["eager"], "launcher": ["local"], "logger": ["csv"], "trainer": ["default"]}
VALUES = {
    "backend": ["eager", "fused", "cudnn", "auto"], "launcher.name": ["local"], "logger.name": ["csv"],
    "trainer.accelerator": ["cpu"], "trainer.devices": [1], "trainer.num_nodes": [1], "trainer.num_workers": [0],
}  # fmt: skip
# What makes a run one of a fraction of a second, wherever there is such a key.
SMALL = {
    "data.batch_size": 3, "data.eval_batch_size": 4, "data.bptt": 5, "data.train_size": 6, "data.valid_size": 5,
    "data.test_size": 5, "data.min_length": 4, "data.max_length": 30, "data.verify": False, "data.view": "row",
    "model.hidden_size": 4, "trainer.max_epochs": 1, "trainer.limit_train_batches": 1, "trainer.limit_val_batches": 1,
    "trainer.limit_test_batches": 1, "trainer.enable_progress_bar": False, "trainer.accelerator": "cpu",
}  # fmt: skip
SMALL_DATA = {
    "adding": {"data.length": 7},
    "copy_memory": {"data.length": 3},
    "dataset": {"data.path": "own.csv", "data.sequence": "wave", "data.label": "kind", "data.valid_size": 0.2,
                "data.test_size": 0.2},
}  # fmt: skip
HUGE = [2**63, -(2**63) - 1, 10**400]
TEXTS = [
    "", " ", "abc", "auto", "größe 大小", "a\nb", "\x1b[31mred", "nul\0", "\udcff", "../../x", "~no_such_user/x", "'",
    '"', "\\", "<b>&", "{}", "%s", "a=b", "a,b", "..", "_target_", "x" * 300, "???",
]  # fmt: skip
INTERPOLATIONS = [
    "${seed}", "${nothing}", "${model}", "${oc.env:NO_SUCH_VARIABLE}", "${oc.decode:'[1'}", "${oc.create:{a:1}}",
    "${no_resolver:1}", "${", "${${seed}}", "a${seed}b", "${..seed}", "${data.name}", "${hydra:runtime.cwd}",
]  # fmt: skip
NAMES = st.text(string.ascii_lowercase + "_", min_size=1, max_size=8)
SHARES = st.floats(0, 1).map(lambda share: round(share, 3))
NUMBERS = st.sampled_from([0, 1, -1, 0.5, 1.5, 1e308, -1e308, 1e-320, -0.0, float("inf"), float("nan"), *HUGE])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 7), SHARES, NUMBERS, st.floats(), st.sampled_from(TEXTS),
    st.sampled_from(INTERPOLATIONS),
    st.text(st.characters(exclude_characters="/"), max_size=5),
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.just("name"), inner, max_size=3),
    max_leaves=5,
)
fuzz = settings(deadline=None, suppress_health_check=[*HealthCheck])


def spelt(value: object) -> str:
    """Write a value as the command line has it."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, str):
        return value if value in INTERPOLATIONS else '"' + re.sub(r'(\\*)("|$)', r"\1\1\\\2", value)[:-1] + '"'
    if isinstance(value, list):
        return "[" + ",".join(map(spelt, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}: {spelt(entry)}" for key, entry in value.items()) + "}"
    return str(value)


@cache
def composed(*choices: str) -> dict[str, object]:
    values = OmegaConf.to_container(compose(list(choices))[1])
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items() if key != "experiment"}


@cache
def defaults(choices: tuple[str, ...]) -> dict[str, object]:
    """Return all keys of the config with these choices, mappings too, and their values."""
    base = composed()
    values = {**base}
    for choice in choices:  # one by one, so that they can be kept
        values |= {key: value for key, value in composed(choice).items() if value != base[key]}
    for key in {*CHOICES} & {*values}:  # a name without a YAML file has options too
        name = values[key]["name"]
        options = {one.name: one.default for one in dataclasses.fields(schema_at(key, name))}
        values[key] = {**{name: None if value == MISSING else value for name, value in options.items()}, **values[key]}
    found: dict[str, object] = {}

    def walk(place: str, value: object) -> None:
        found[place] = value
        for key, entry in value.items() if isinstance(value, dict) else ():
            walk(f"{place}.{key}", entry)

    for key, value in values.items():
        walk(key, value)
    return found


@cache
def allowed(data: str, key: str) -> list[str]:
    """Return the names that a key may have: a group's options, or those that the refusal of another name lists."""
    if key in OPTIONS:
        return OPTIONS[key]
    config = OmegaConf.create(composed(data))
    OmegaConf.update(config, key, "no_such_name", force_add=True)
    try:
        load(config)
    except RecurlabError as refusal:
        found = re.search(r"='no_such_name': allowed are ([^;]*)", str(refusal))
        return found[1].split(", ") if found else []
    return []


def right(choices: tuple[str, ...], key: str) -> st.SearchStrategy[object]:
    """Return values of the type that a key has."""
    value, (data,) = defaults(choices)[key], (choice for choice in choices if choice.startswith("data="))
    if key in VALUES or key in GROUPS:
        return st.sampled_from(VALUES.get(key) or GROUPS[key])
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.integers(0, 7)
    if isinstance(value, float):
        return SHARES
    if names := allowed(data if key.startswith("data") else "data=adding", key):
        return st.sampled_from([value, *names])
    if value is None:
        return st.none() | st.integers(0, 7) | SHARES | st.sampled_from(TEXTS)
    return st.just(value) | st.sampled_from(TEXTS)


@st.composite
def chosen(draw, data: str) -> tuple[str, ...]:
    """Draw an option of each group."""
    options = {group: each for group, each in {**OPTIONS, **GROUPS, "data": [data]}.items() if group in OPTIONS}
    return tuple(f"{group}={draw(st.sampled_from(each))}" for group, each in options.items() if group != "experiment")


def small(choices: tuple[str, ...]) -> list[str]:
    (data,) = (choice.removeprefix("data=") for choice in choices if choice.startswith("data="))
    wanted = {**SMALL, **SMALL_DATA.get(data, {})}
    return [f"{key}={spelt(value)}" for key, value in wanted.items() if key in defaults((f"data={data}",))]


@pytest.fixture
def outcome(tiny_data, tmp_path, monkeypatch):
    """Return a function that runs a command line in an empty folder and looks at what it said and left."""
    monkeypatch.setenv("RECURLAB_DATA", str(tiny_data))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*words: str) -> int:
        folder = tmp_path / "deep" / "in" / "folders"
        folder.mkdir(parents=True)
        shutil.copy(tiny_data / "own.csv", folder)
        monkeypatch.chdir(folder)
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
                code = main(["train", *words])
            runs = [json.loads(path.read_text()) for path in tmp_path.rglob("status.json")]
            check(code, said.getvalue(), runs, several="-m" in words)
        finally:
            monkeypatch.chdir(tmp_path)
            shutil.rmtree(tmp_path / "deep")
        return code

    return run


def check(code: int, said: str, runs: list[dict[str, str]], several: bool) -> None:
    if code == 0:
        assert {run["state"] for run in runs} == {"finished"}
        assert said == ""
        return
    assert code == 2
    lines = said.splitlines()
    assert len(lines) == 1 or several
    # What breaks a job of a grid is named there: it is none of the errors that a user may meet.
    assert not [line for line in lines if re.match(r"recurlab: \w+(Error|Exception|Warning): ", line)]
    assert all(line.startswith("recurlab: ") and line.isprintable() and "Traceback" not in line for line in lines)
    left = {run["state"] for run in runs}
    assert left <= {"failed", "finished"} if several else left <= {"failed"}
    assert all(run["reason"] for run in runs if run["state"] == "failed")


@st.composite
def valid(draw, data: str) -> list[str]:
    choices = draw(chosen(data))
    keys = draw(st.lists(st.sampled_from(sorted(defaults(choices))), max_size=4, unique=True))
    changes = [f"{key}={spelt(draw(right(choices, key)))}" for key in keys]
    return [*choices, *small(choices), *changes]


@pytest.mark.parametrize("data", OPTIONS["data"])
def test_choices_and_values_of_the_right_type(outcome, data):
    codes = []

    @settings(fuzz, max_examples=8)
    @given(words=valid(data))
    def check(words):
        codes.append(outcome(*words))

    check()
    assert 0 in codes


SECTIONS = sorted({key.partition(".")[0] for key in defaults(())})


@st.composite
def invalid(draw, section: str) -> list[str]:
    choices = draw(chosen(draw(st.sampled_from(OPTIONS["data"]))))
    keys = [key for key in defaults(choices) if key.partition(".")[0] == section]
    changed = draw(st.lists(st.sampled_from(keys), min_size=1, max_size=2, unique=True))
    return [*choices, *small(choices), *(f"{key}={spelt(draw(NUMBERS | SCALARS | ANYTHING))}" for key in changed)]


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("section", SECTIONS)
def test_any_value_of_a_key(outcome, section):
    @settings(fuzz, max_examples=8)
    @given(words=invalid(section))
    def check(words):
        outcome(*words)

    check()


SLIPS = ["", "", "", "x", "x", "_", ".name", ".a.b", ".", "@", "/", " ", "=", "\n", "\x1b", "é", "[0]"]


@st.composite
def misspelt(draw) -> list[str]:
    choices = (f"data={draw(st.sampled_from(OPTIONS['data']))}",)
    words = []
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from([*defaults(choices), *OPTIONS, "_target_", "hydra.run.dir", "defaults", ""]))
        place, slip = draw(st.integers(0, len(key))), draw(st.sampled_from(SLIPS))
        key = draw(st.sampled_from(["", "", "", "+", "++", "~"])) + key[:place] + slip + key[place:]
        values = right(choices, key) if key in defaults(choices) else st.sampled_from([0, "gru", None, {"name": "gru"}])
        value = draw((values | ANYTHING).map(spelt) | st.sampled_from(["1,2", "range(1,3)", "a b", "]", ""]))
        words.append(draw(st.sampled_from([f"{key}={value}"] * 5 + [key])))
    return [*choices, *small(choices), *words]


@pytest.mark.parametrize("part", range(4))
def test_any_words(outcome, part):
    @settings(fuzz, max_examples=13)
    @given(words=misspelt())
    def check(words):
        outcome(*words)

    check()


@pytest.mark.parametrize("part", range(2))
def test_any_grid(outcome, part):
    @settings(fuzz, max_examples=5)
    @given(grid=grids())
    def check(grid):
        outcome("-m", *grid)

    check()


@st.composite
def grids(draw) -> list[str]:
    words = draw(valid(draw(st.sampled_from(OPTIONS["data"]))))
    keys = st.sampled_from(["seed", "model.hidden_size", "model.stack", "cell.name", "optimizer.lr", "data.batch_size"])
    for key in draw(st.lists(keys, min_size=1, max_size=2, unique=True)):
        values = [draw(right(tuple(words[:9]), key)), draw(ANYTHING)]
        words.append(f"{key}=" + ",".join(map(spelt, values)))
    return words
