"""The command for a machine with a GPU: its stages, its limits, and what is left of it whatever ends it."""

import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import recurlab as package
from recurlab.bench import prebuild, stages, verify
from recurlab.bench.stages import BROKEN, Stage
from recurlab.errors import RecurlabError

CHECKOUT = Path(package.__file__).parents[2]


def stage(name, code, limit=60, **options):
    return Stage(name, [sys.executable, "-c", code], limit, **options)


@pytest.fixture
def words(tmp_path):
    """Return the words of a command that leaves all in the test's folder."""
    return ["device=cpu", f"output={tmp_path / 'out'}", f"logs={tmp_path / 'logs'}"]


@pytest.fixture
def made(monkeypatch):
    """Return what puts other stages in the place of the command's."""
    return lambda *given: monkeypatch.setattr(verify, "stages", lambda *_: list(given))


@pytest.fixture
def hasty(monkeypatch):
    """Let all that has to wait be short of it."""
    monkeypatch.setattr(stages, "PATIENCE", (0.5, 0.5))
    monkeypatch.setattr(stages, "ANEW", 0)
    monkeypatch.setattr(verify, "LEAST", 0)


def summary(out):
    return [line.split(" after ")[0].strip() for line in out.partition("summary:\n")[2].splitlines()]


def test_the_command_goes_on_after_a_failure_and_says_so_at_the_end(words, made, hasty, capsys, tmp_path):
    made(
        stage("bad", "print('why'); raise SystemExit(3)"),
        stage("endless", "import time\nprint('begun', flush=True)\ntime.sleep(60)", limit=3),
        stage("absent", "", skipped="no such tool"),
        stage("good", "print('noise\\ngoals: all\\nrest')", shown="^goals: "),
    )
    assert verify.verify(words) == 1
    out = capsys.readouterr().out
    assert "why\n" in out
    assert "begun\n" in out
    assert "noise" not in out
    assert "goals: all\nrest\n" in out
    ends = ["bad: failed (3)", "endless: ended by its limit of 3 s", "absent: skipped: no such tool", "good: ok"]
    assert summary(out) == ends
    # All of it is in one folder of few files.
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"summary.txt", "logs.tgz"}
    text = (tmp_path / "out" / "summary.txt").read_text()
    assert summary(text) == ends
    assert "goals: all\nrest\n" in text
    with tarfile.open(tmp_path / "out" / "logs.tgz") as archive:
        names = archive.getnames()
        assert archive.extractfile("logs/good.log").read() == b"noise\ngoals: all\nrest\n"
    assert {"logs/bad.log", "logs/endless.log"} < set(names)
    assert verify.verify([*words, "stages=good"]) == 0


def test_a_stage_is_told_how_long_it_has(words, made, hasty, tmp_path):
    made(
        stage("one", "import sys; print(sys.argv[1:])", limit=60, spare=8),
        stage("two", "import sys; print(sys.argv[1:])"),
    )
    told = {}
    for extra in ([], ["limits=one:30"], ["limit=20"]):
        assert verify.verify([*words, *extra]) == 0
        told[tuple(extra)] = (tmp_path / "logs" / "one.log").read_text().strip()
        assert (tmp_path / "logs" / "two.log").read_text() == "[]\n"
    assert told == {(): "['52']", ("limits=one:30",): "['22']", ("limit=20",): "['12']"}


def test_time_that_is_up_skips_the_rest_and_fails(words, made, capsys):
    made(stage("one", ""), stage("two", "", limit=200))
    assert verify.verify([*words, "limit=14"]) == 1
    assert summary(capsys.readouterr().out) == ["one: skipped: time is up", "two: skipped: time is up"]


@pytest.mark.skipif(os.name != "posix", reason="signals and pipes are those of POSIX")
def test_a_run_that_is_told_to_end_keeps_what_it_had(words, tmp_path):
    os.mkfifo(tmp_path / "open")  # as long as the second stage lives
    wait = f"import time; print('begun', flush=True); alive = open({str(tmp_path / 'open')!r}, 'w'); time.sleep(600)"
    code = f"""
import sys
from recurlab.bench import verify
from recurlab.bench.stages import Stage
commands = {{"first": "print('known')", "second": {wait!r}}}
verify.stages = lambda *_: [Stage(name, [sys.executable, "-c", code], 300) for name, code in commands.items()]
sys.exit(verify.main({words!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    log = tmp_path / "logs" / "second.log"
    while not (log.is_file() and log.read_text()):
        assert process.poll() is None
        time.sleep(0.02)
    with (tmp_path / "open").open() as alive:
        # The first stage's are there already, should this one be killed.
        with tarfile.open(tmp_path / "out" / "logs.tgz") as archive:
            assert archive.extractfile("logs/first.log").read() == b"known\n"
        assert summary((tmp_path / "out" / "summary.txt").read_text()) == ["first: ok"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
        start = time.monotonic()
        assert alive.read() == ""
        assert time.monotonic() - start < 60
    text = (tmp_path / "out" / "summary.txt").read_text()
    assert "\nbegun\n" in text
    assert summary(text) == ["first: ok", "second: ended from outside"]


def test_the_bench_begins_anew_after_the_item_in_which_it_was_lost(tmp_path, hasty):
    code = """
import sys
limit, first, lost = sys.argv[-3:]
print("begun", first, lost)
if first == "0": print("item 0: a\\nitem 1: b"); sys.exit(1)
if first == "2": print("item 2: c\\nthe device is lost to this process"); sys.exit(75)
print("item 3: d\\nresults: there")
"""
    log = tmp_path / "log"
    assert stages.run_bench_stage(stage("bench", code, spare=25), 100, log) == 0
    begun = [line for line in log.read_text().splitlines() if line.startswith("begun")]
    assert begun == ["begun 0 False", "begun 2 True", "begun 3 False"]


TESTS = f"""
import os
import pytest

@pytest.fixture(autouse=True)
def begun(request):
    print(f"begun: {{request.node.nodeid}}", flush=True)
    yield
    if "device" in request.node.name:
        pytest.exit("the device is lost", returncode={BROKEN})

@pytest.mark.parametrize("kind", ["a b", "killed", "wrong", "device", "c", "last"])
def test_it(kind):
    if kind == "killed":
        os._exit(1)
    assert kind != "wrong"
"""


def test_tests_go_on_behind_the_one_in_which_the_process_was_lost(tmp_path, hasty):
    (tmp_path / "test_lost.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", str(tmp_path / "test_lost.py")]
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    log = tmp_path / "log"
    assert stages.tested(Stage("parity", command, 60, None, alone), 60, log) == 1
    text = log.read_text()
    kinds = ["a b", "killed", "wrong", "device", "c", "last"]
    assert [line.partition("test_it[")[2] for line in text.splitlines() if "begun: " in line] == [
        f"{k}]" for k in kinds
    ]
    assert "the device is lost" in text
    assert text.rstrip().splitlines()[-1].startswith("2 passed, ")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("devise=cpu", "devise='cpu': unknown key; allowed are "),
        ("device=gpu", "device='gpu': allowed are cpu, cuda"),
        ("stages=party", "stages='party': allowed are smoke, compile, parity, "),
        ("limits=party:3", "limits='party': allowed are smoke, compile, parity, "),
        ("limits=bench", "limits=bench='': must be a number of seconds above 0"),
        ("limit=0", "limit='0': must be a number of seconds above 0"),
        ("logs=out/logs", "logs='out/logs': must not lie in the folder of output='out'"),
        ("kernels=none", "kernels='.*none': must be a folder that scripts/gpu_prebuild has made"),
        ("tiny", "'tiny': an argument has the form"),
    ],
)
def test_a_mistake_is_named(word, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["device=cpu", "output=out", word]
    with pytest.raises(RecurlabError, match="^" + reason.replace("(", "\\(")):
        verify.verify(given)
    assert not list(tmp_path.iterdir())


def test_rows_are_adopted_by_a_word_of_its_own(monkeypatch, capsys):
    def adopt(path):
        if path.name == "none.csv":
            raise RecurlabError("no such file")
        return [f"took {path.name}", "2 rows"]

    monkeypatch.setitem(sys.modules, "recurlab.bench.adopt", SimpleNamespace(adopt=adopt))
    assert verify.main(["--adopt", "h200.csv"]) == 0
    assert capsys.readouterr().out == "took h200.csv\n2 rows\n"
    for words, reason in ((["none.csv"], "no such file"), ([], "--adopt: needs one csv of a GPU that was measured")):
        assert verify.main(["--adopt", *words]) == 2
        assert capsys.readouterr().err == f"gpu_verify: {reason}\n"


def test_the_stages_are_in_order_and_the_most_telling_have_the_time():
    every = stages.stages("cuda", False, Path("out"), "now")
    names = [each.name for each in every]
    assert names == ["smoke", "compile", "parity", "bench", "peers", "memcheck", "racecheck", "training"]
    assert f"all of {','.join(names)}\n" in verify.USAGE
    by_name = {each.name: each for each in every}
    assert by_name["smoke"].limit < 140
    assert by_name["peers"].command[1:] == ["-m", "recurlab.bench.peers", "cuda", "out", "False"]
    assert by_name["peers"].spare is not None
    for each in every:
        assert each.spare is None or each.spare >= sum(stages.PATIENCE)


@pytest.mark.parametrize("command", [verify, prebuild], ids=["verify", "prebuild"])
def test_help_lists_all_keys(command, capsys):
    assert command.main(["--help"]) == 0
    listed = capsys.readouterr().out
    for key in command.DEFAULTS:
        assert f"  {key}=" in listed


@pytest.mark.skipif(not (CHECKOUT / "scripts").is_dir(), reason="installed without its scripts")
@pytest.mark.parametrize("name", ["verify", "prebuild"])
def test_the_scripts_need_no_installation(name, tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$PYTHONPATH" "$PWD" "$@"\n')
    python.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(python)}
    command = ["bash", CHECKOUT / "scripts" / f"gpu_{name}", "tiny=true", "two words"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, cwd=tmp_path)
    assert done.stdout == f"src {CHECKOUT} -m recurlab.bench.{name} tiny=true two words\n"


@pytest.mark.slow
def test_the_whole_command_on_a_small_trial(words, tmp_path, skip_unless_able):
    skip_unless_able("fused")
    assert (
        verify.verify([*words, "tiny=true", "stages=smoke,parity,bench,peers", "limit=1500", "limits=smoke:800"]) == 0
    )
    kept = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(kept) <= 8
    assert {"summary.txt", "logs.tgz"} < set(kept)
    assert any(name.endswith("-peers.csv") for name in kept)
    assert {Path(name).suffix for name in kept} == {".csv", ".png", ".tgz", ".txt"}
