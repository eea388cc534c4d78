"""Nothing that a config or a run directory holds runs code, is obeyed by a terminal, or writes elsewhere."""

import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import recurlab as package
from recurlab import compose
from recurlab.cli import main
from recurlab.config import Config
from recurlab.results.figures import draw_curves

SECRET = "what-the-environment-knows"
SMALL = [
    "data=text", "data.dir=.", "data.train=book.txt", "data.batch_size=3", "data.eval_batch_size=2", "data.bptt=5",
    "model.hidden_size=4", "trainer.max_steps=2", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false",
    "backend=eager", "output_dir=runs",
]  # fmt: skip
READERS = {"evaluate": [], "report": [], "generate": ["--length", "3"]}
TAGS = [
    "!!python/object/apply:os.system ['echo > canary']",
    "!!python/object/new:os.system ['echo > canary']",
    "!!python/object/apply:subprocess.check_call [['touch', 'canary']]",
    "!!python/object/apply:builtins.exec ['import os; os.mkdir(\"canary\")']",
]


class Evil:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return os.system, ("echo > canary",)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder in which a small language model was trained; its run is at runs/text/gru/*."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "book.txt").write_text("so & so <b>1</b>\n" * 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", *SMALL]) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of that run, in a copy of that folder."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (status,) = tmp_path.rglob("status.json")
    return status.parent


@pytest.fixture
def read_back(recurlab, run, tmp_path, monkeypatch):
    """Return a function that has a run read by all commands, and checks that this did nothing else."""
    monkeypatch.setattr("recurlab.results.report.SAMPLE", {"char": (3, "characters"), "word": (3, "words")})

    def read() -> list[str]:
        lines = []
        for command, options in READERS.items():
            code, _, said = recurlab(command, str(run), *options)
            assert code in (0, 2)
            assert said.count("\n") == (code == 2)
            assert said.rstrip("\n").isprintable()
            assert said.startswith("recurlab: ") or not said
            lines += [said] if said else []
        try:
            package.load_run(run)
        except package.RecurlabError as error:
            lines.append(str(error))
        assert not (tmp_path / "canary").exists()
        return lines

    return read


def change(path: Path, key: str, value: object) -> None:
    """Set a key, a.b.c, in a YAML or JSON file."""
    content = yaml.safe_load(path.read_text())
    place = content
    *above, last = key.split(".")
    for name in above:
        place = place[name]
    place[last] = value
    path.write_text(json.dumps(content))  # which is YAML too


def test_the_run_can_be_read_as_long_as_nobody_tampers_with_it(read_back):
    assert read_back() == []


@pytest.mark.parametrize("tag", TAGS)
class TestYaml:
    def test_it_would_work_elsewhere(self, tag, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        yaml.unsafe_load(tag)
        assert (tmp_path / "canary").exists()

    @pytest.mark.parametrize("key", ["experiment", "seed", "own"])
    def test_of_a_run(self, tag, key, run, read_back):
        text = (run / "config.yaml").read_text()
        lines = [line for line in text.splitlines() if not line.startswith(f"{key}:")]
        (run / "config.yaml").write_text("\n".join([*lines, f"{key}: {tag}"]))
        assert all(f"{run / 'config.yaml'}: can't be read" in line for line in read_back())

    @pytest.mark.parametrize("group", ["cell", "task", "sweep"])
    def test_of_a_user(self, tag, group, recurlab, tmp_path):
        (tmp_path / "configs" / group).mkdir(parents=True)
        (tmp_path / "configs" / group / "own.yaml").write_text(f"name: gru\nactivation: {tag}\n")
        command = "sweep" if group == "sweep" else "train"
        code, out, said = recurlab(command, f"{group.replace('task', 'data')}=own")
        assert (code, out, said.count("\n")) == (2, "", 1)
        assert not (tmp_path / "canary").exists()


BOMB = "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9 if i else 'x' * 9)}]\n" for i in range(20))


def test_a_small_config_that_unfolds_without_end_is_one_line(run, read_back, recurlab):
    (run / "config.yaml").write_text(BOMB)
    code, _, said = recurlab("train", f"resume={run}")
    assert (code, said.count("\n")) == (2, 1)
    lines = [*read_back(), said]
    assert len(lines) == 5
    assert all(f"{run / 'config.yaml'}: can't be read: its aliases" in line for line in lines)


FILES = ("config.yaml", "status.json", "data.json", "provenance.json", "result.json", "metrics.csv", "confusion.csv",
         "diff.patch", ".lock", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "curves.png")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "hole"])
def test_no_file_of_a_run_is_waited_for(run, read_back, recurlab, kind):
    make = {
        "pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": os.mkdir,
        "hole": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 2**42),
    }[kind]  # fmt: skip
    for name in FILES:
        path, kept = run / name, run / "kept"
        if there := path.exists():
            path.rename(kept)
        make(path)
        read_back()
        if path.name in ("config.yaml", "status.json", ".lock", "metrics.csv", "last.ckpt"):
            code, _, said = recurlab("train", f"resume={run}", "trainer.max_steps=3")
            assert code in (0, 2)
            assert said.count("\n") <= 1 or code == 0
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if there:
            kept.rename(path)


@pytest.mark.parametrize(
    "override",
    ["+_target_=os.system", "+cell._target_=os.system", "model.constraint.bias={_target_: os.system, name: max_abs}",
     "data={_target_: subprocess.run, name: adding}", "cell.options={_target_: os.system, _args_: [echo]}",
     "model.init.bias={_target_: os.system, _args_: [echo > canary]}", "+_recursive_=true",
     "data.name=os.system", "optimizer.name=torch.load", "model.stack=os:system", "hydra.searchpath=[file://.]",
     "+hydra.job.env_set={A: b}", "hydra/launcher=basic", "hydra.run.dir=elsewhere"],
)  # fmt: skip
def test_no_name_of_an_object_is_looked_up(recurlab, tmp_path, override, monkeypatch):
    monkeypatch.setattr(os, "system", lambda command: pytest.fail(command))
    code, out, said = recurlab("train", override)
    assert (code, out, said.count("\n")) == (2, "", 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["run", "here"])
def test_plugins_that_a_run_names_are_not_imported(run, read_back, tmp_path, place, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(run), *sys.path])
    folder = run if place == "run" else tmp_path
    (folder / "smuggled.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    for plugins in (["smuggled"], "smuggled", {"smuggled": 1}, [["smuggled"]]):
        change(run / "config.yaml", "plugins", plugins)
        read_back()


@pytest.mark.parametrize("key", ["experiment", "data.name", "data.dir", "plugins"])
@pytest.mark.parametrize("resolver", ["oc.env", "oc.decode:${oc.env", "own"])
def test_an_interpolation_in_a_run_reads_nothing(run, read_back, key, resolver, monkeypatch):
    monkeypatch.setenv("TOKEN", SECRET)
    OmegaConf.register_new_resolver("own", lambda name: pytest.fail(name), replace=True)
    end = "}" * resolver.count("${") + "}"
    change(run / "config.yaml", key, f"${{{resolver}:TOKEN{end}")
    try:
        lines = read_back()
        with pytest.raises(package.RecurlabError):
            draw_curves(run)
    finally:
        OmegaConf.clear_resolver("own")
    assert len(lines) == 4  # each reader's, and load_run's
    assert all(f"{key}='${{{resolver}:TOKEN{end}'" in line for line in lines)
    assert not [line for line in lines if SECRET in line]


@pytest.mark.parametrize("form", ["archive", "legacy", "bare", "weights"])
@pytest.mark.parametrize("name", ["best", "last"])
def test_a_checkpoint_is_not_unpickled(run, read_back, recurlab, tmp_path, name, form, monkeypatch):
    path = run / "checkpoints" / f"{name}.ckpt"
    if form == "bare":
        path.write_bytes(pickle.dumps(Evil()))
    else:
        change = {"state_dict": {"model.head.bias": Evil()}} if form == "weights" else {"own": Evil()}
        content = {**torch.load(path, weights_only=True), **change}
        torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    if name == "best":
        lines = [line for line in read_back() if line]
        assert all(f"{path}: not a checkpoint of this model" in line for line in lines)
        assert not any("weights_only" in line for line in lines)
    else:
        for other in ("next", "previous"):
            (run / "checkpoints" / f"{other}.ckpt").unlink(missing_ok=True)
        code, _, said = recurlab("train", f"resume={run}", "trainer.max_steps=3")
        assert (code, said.count("\n")) == (2, 1)
        assert str(path) in said
        assert "weights_only" not in said
    assert not (tmp_path / "canary").exists()
    monkeypatch.chdir(tmp_path)
    if form == "bare":
        pickle.loads(path.read_bytes())  # noqa: S301
    else:
        torch.load(path, weights_only=False)
    assert (tmp_path / "canary").exists()  # elsewhere it would have worked


@pytest.mark.parametrize(
    "content",
    [{}, {"state_dict": None}, {"state_dict": {}}, {"state_dict": []}, {"state_dict": {"model.head.bias": 3}},
     {"state_dict": {"model.head.bias": torch.zeros(1).expand(2**50)}}, [], 3, {"state_dict": {1: torch.zeros(1)}}],
)  # fmt: skip
def test_a_checkpoint_of_anything_else_is_one_line(run, read_back, content):
    path = run / "checkpoints" / "best.ckpt"
    torch.save(content, path)
    assert [line for line in read_back() if f"{path}: not a checkpoint of this model" not in line] == []


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([10**18, 10**30, 10**400, -(10**400)]),
    st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["", "???", "${seed}", "${", "\0", "\x1b[2J"]),
    st.text(max_size=4), st.just([]), st.just({}), st.just([[None]]), st.just({"a": [{"b": None}]}),
)  # fmt: skip
JSON = ["config.yaml", "data.json", "provenance.json", "result.json", "status.json"]


def keys_of(content: object, place: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [place, *(key for name, entry in entries for key in keys_of(entry, (*place, name)))][:400]


@pytest.mark.parametrize("name", JSON)
@settings(deadline=None, max_examples=8, suppress_health_check=[*HealthCheck])
@given(data=st.data())
def test_any_value_in_a_file_of_a_run(run, read_back, name, data):
    path = run / name
    kept = path.read_text()
    content = yaml.safe_load(kept)
    place = data.draw(st.sampled_from(keys_of(content)))
    value = data.draw(ODD)
    if place:
        inner = content
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
    else:
        content = value
    path.write_text(json.dumps(content))
    try:
        read_back()
    finally:
        path.write_text(kept)


@pytest.mark.parametrize("cell", ["9" * 30, "9" * 400, "9" * 5000, "1e999", "-1", "=1+1", "\x1b[2J", "\0", '"', "\n"])
@pytest.mark.parametrize(
    ("name", "text"),
    [("metrics.csv", "epoch,step,train/loss,valid/loss\n0,1,{},\n0,2,,1.0\n"),
     ("metrics.csv", "epoch,step,train/loss,valid/loss\n0,{},1.0,\n0,2,,1.0\n"),
     ("metrics.csv", "epoch,step,train/{},valid/loss\n0,1,1.0,\n0,2,,1.0\n"),
     ("confusion.csv", "a,b\n{},1\n2,3\n"), ("confusion.csv", "a,{}\n1,1\n2,3\n")],
)  # fmt: skip
def test_any_cell_in_a_table_of_a_run(run, recurlab, name, text, cell):
    (run / "checkpoints" / "best.ckpt").unlink()  # no samples
    (run / name).write_text(text.format(cell))
    code, _, said = recurlab("report", str(run))
    assert said.count("\n") == (code == 2)
    assert said.rstrip("\n").isprintable()
    assert not code or said.startswith(f"recurlab: {run / name}: ")


def test_no_name_in_a_table_is_taken_for_html(run, recurlab):
    evil = "<script>alert(1)</script>"
    (run / "metrics.csv").write_text(f"step,valid/loss,valid/{evil},lr-{evil}\n1,1.0,2.0,3.0\n")
    (run / "data.json").write_text(json.dumps({"names": [evil], "input_size": evil, "symbols": evil}))
    assert recurlab("report", str(run))[0] == 0
    page = (run / "report.html").read_text()
    assert "&lt;script&gt;" in page
    assert "<script" not in page


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/../../x", "..", ".", "a//b", "", "a/", "a\nb", "~/x", "a/.b"])
def test_a_run_stays_in_its_output_dir(recurlab, tmp_path, name):
    for override in (f"experiment={name}", f'experiment="{name}"', f'+experiment="{name}"', f'++experiment="{name}"'):
        code, out, said = recurlab("train", override)
        assert (code, out, said.count("\n")) == (2, "", 1)
    config, _ = compose.compose(["data=adding"])
    with pytest.raises(package.RecurlabError, match="experiment="):
        Config(**{**vars(config), "experiment": name})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [["train", "a\x1b[31m=1"], ["train", "seed=\x1b[31m"], ["train", "'a\nb'=1"], ["train", 'cell="\x1b]0;x\x07"'],
     ["tr\x1bain"], ["report", "\x1b[2J"], ["report", "a\nb"], ["evaluate", "\x1b[2J", "data.dir=\x1b"],
     ["generate", "\x1b[2J"], ["generate", "x", "--length", "\x1b"], ["train", "--\x1b[2J"], ["train", "\u202e=1"],
     ["completion", "\x1b"], ["train", "-m", "seed=1,\x1b"], ["train", "plugins=['\x1b']"], ["bench", "\x1b=1"],
     ["train", 'output_dir="\x1b\0"'], ["train", "data=mnist", 'data.dir="\x1b[2J"'], ["explain", "\x9b31m=2"]],
)  # fmt: skip
def test_a_terminal_is_told_nothing_but_a_line(recurlab, words):
    code, out, said = recurlab(*words)
    assert (code, out) == (2, "")
    assert all(line.isprintable() for line in said.splitlines())
    assert len([line for line in said.splitlines() if not line.startswith(("usage:", " "))]) == 1
