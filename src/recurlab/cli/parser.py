"""The words that the command line takes, their help and their completion."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from recurlab import __version__
from recurlab.studies import SCALES

BASH_COMPLETION = """\
# In ~/.bashrc: eval "$(recurlab completion bash)"
_recurlab() {
    local line="${COMP_LINE:0:$COMP_POINT}"
    local word="${line##* }"
    local done="${word%"${word##*[=:]}"}"  # bash itself breaks words at = and :
    mapfile -t COMPREPLY < <(recurlab _complete "$line" 2>/dev/null)
    COMPREPLY=("${COMPREPLY[@]#"$done"}")
}
complete -o default -o nospace -F _recurlab recurlab
"""
COMPLETION = {"bash": BASH_COMPLETION, "zsh": "autoload -Uz bashcompinit && bashcompinit\n" + BASH_COMPLETION}
COMMANDS = (
    "train", "evaluate", "report", "generate", "explain", "sweep", "bench", "study", "convert", "export", "completion",
)  # fmt: skip
STUDY = ("run", "status", "collect", "report", "list")  # what study does
LOOKS = {
    "status": "show what has ended of a study, what is running, and how far it is",
    "collect": "take results of runs that are there, and unfinished ones, into a study, and report it",
}
CONFIG_DIR = "--config-dir"
SAMPLING = ("length", "temperature", "top_k", "seed")  # options of generate


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and whose help ends with what `more` gives when it is asked for."""

    def __init__(self, *arguments: Any, more: Callable[[], str] | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._more = more

    def format_help(self) -> str:
        """Return the help text."""
        if self._more is not None:
            self.epilog = self._more()
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = _Parser(prog="recurlab", description="A laboratory for recurrent networks.")
    parser.add_argument("--version", action="version", version=f"recurlab {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{" + ",".join(COMMANDS) + "}")
    raw = argparse.RawDescriptionHelpFormatter
    train = commands.add_parser("train", help="train, test and keep a run", formatter_class=raw, more=_options)
    train.add_argument("-m", "--multirun", action="store_true", help="run the grid of all key=a,b and key=range(0,3)")
    evaluate = commands.add_parser("evaluate", help="test the best checkpoint of runs once more")
    evaluate.add_argument("run", nargs="+", help="the runs' directories, and key=value under data or trainer")
    report = commands.add_parser("report", help="write all that is known of runs into a page each, report.html")
    report.add_argument("run", nargs="+", help="the runs' directories, and plugins=[...] if they had any")
    _add_generate(commands.add_parser("generate", help="let the language model of a run write"))
    explain = commands.add_parser(
        "explain", help="print the model and the backend of each layer", formatter_class=raw, more=_options
    )
    explain.add_argument("--source", action="store_true", help="print the kernels' generated arithmetic too")
    for command in (train, explain):
        command.add_argument("overrides", nargs="*", metavar="key=value", help="choices and values of the config")
    sweep = commands.add_parser(
        "sweep", help="search for good values of a config's keys, by Optuna", formatter_class=raw, more=_sweep_keys
    )
    sweep.add_argument(
        "words", nargs="*", metavar="key=value", help="the sweep's keys and those of train; or: report and its folders"
    )
    bench = commands.add_parser(
        "bench", help="measure the speed of cells and backends beside torch and other packages", formatter_class=raw,
        more=_bench_keys,
    )  # fmt: skip
    bench.add_argument("settings", nargs="*", metavar="key=value", help="what to measure and how")
    for command in (train, explain, sweep):
        _add_config_dir(command)
    _add_study(commands.add_parser("study", help="run studies, and write what they found into tables and pictures"))
    _add_convert(commands.add_parser("convert", help="bring a layer's weights from one package's file to another's"))
    _add_export(commands.add_parser("export", help="write the model of a run for use without recurlab"))
    completion = commands.add_parser("completion", help="print a shell's script for tab completion")
    completion.add_argument("shell", choices=sorted(COMPLETION))
    return parser


def _add_generate(generate: argparse.ArgumentParser) -> None:
    generate.add_argument("run", nargs="+", help="the run's directory, and plugins=[...] if it had any")
    generate.add_argument("--prompt", default="", metavar="TEXT", help="what the text begins with")
    generate.add_argument("--length", type=int, default=500, help="characters, or words, that are written (500)")
    generate.add_argument("--temperature", type=float, default=1.0, help="near 0: always the most likely one (1.0)")
    generate.add_argument("--top-k", type=int, metavar="K", help="draw from the K most likely ones (all)")
    generate.add_argument("--seed", type=int, default=0, help="of the draws (0)")


def config_dir(words: Sequence[str]) -> str | None:
    """Return the folder that words give with --config-dir, which --help and completion list too; None without one."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == CONFIG_DIR and following:
            return following
        if word.startswith(f"{CONFIG_DIR}="):
            return word.removeprefix(f"{CONFIG_DIR}=")
    return None


def _add_config_dir(command: argparse.ArgumentParser) -> None:
    command.add_argument(CONFIG_DIR, metavar="DIR", help="YAML files of your own (./configs, where there is one)")


def _add_study(study: argparse.ArgumentParser) -> None:
    actions = study.add_subparsers(dest="action", metavar="{" + ",".join(STUDY) + "}")
    run = actions.add_parser("run", help="run what is missing of a study, and report it")
    run.add_argument("study", help="a folder under experiments/")
    run.add_argument("--scale", default="cpu", choices=SCALES, help="how large it is run (cpu)")
    run.add_argument("overrides", nargs="*", metavar="key=value", help="launcher, logger, output_dir and the like")
    _add_config_dir(run)
    for name, text in LOOKS.items():
        look = actions.add_parser(name, help=text)
        look.add_argument("study", help="a folder under experiments/")
        look.add_argument("--scale", choices=SCALES, help="of the runs (all)")
        look.add_argument("overrides", nargs="*", metavar="key=value", help="output_dir, data.dir and the like")
        _add_config_dir(look)
    report = actions.add_parser("report", help="write tables and pictures of studies from their CSV files")
    report.add_argument("study", nargs="*", help="folders under experiments/ (all)")
    report.add_argument("--check", action="store_true", help="write nothing; fail if what is written is not that")
    actions.add_parser("list", help="show the studies and how many of their runs are there")


def _add_convert(convert: argparse.ArgumentParser) -> None:
    files = ".npz, .safetensors, .h5, .hdf5, .pt or .pth"
    convert.add_argument("source", help=f"{files}, .keras, .ckpt, or a checkpoint of TensorFlow")
    convert.add_argument("target", help=files)
    convert.add_argument(
        "--from", dest="format", required=True, help="torch, keras, tensorflow, cudnn, haste or recurlab"
    )
    convert.add_argument("--to", default="torch", help="the same (torch)")
    convert.add_argument("--layer", default="", help="what the names begin with, in a file of several layers")
    convert.add_argument("--cell", help="rnn, gru or lstm, where the arrays leave that open")
    convert.add_argument("--reset", help="of a GRU, after or before, where they leave that open")
    convert.add_argument("--forget-bias", type=float, default=1.0, help="that TensorFlow's LSTM cells add (1.0)")


def _add_export(export: argparse.ArgumentParser) -> None:
    export.add_argument("run", nargs="+", help="the run's directory, a file.onnx or file.pt2, and plugins=[...]")
    export.add_argument(
        "--inputs", default="", metavar="A,B", help="beside the sequence: hx, lengths, resets (hx where stateful)"
    )


def _options() -> str:
    """Return the config groups and their options, for --help."""
    from recurlab.sources import groups

    lines = [f"  {group}={' | '.join(options)}" for group, options in groups().items()]
    return "\n".join(["choices:", *lines, "", "values, for example:", "  model.hidden_size=64 seed=1 data.length=500"])


def _sweep_keys() -> str:
    """Return the keys of sweep, for --help."""
    from recurlab.sweep.settings import sweep_usage

    return sweep_usage()


def _bench_keys() -> str:
    """Return the keys of bench, for --help."""
    from recurlab.bench.settings import bench_usage

    return bench_usage()


def completions(line: str) -> list[str]:
    """Return what the last word of a command line may become."""
    words = line.split(" ")
    if len(words) <= 2:
        return [command for command in COMMANDS if command.startswith(words[-1])]
    if words[1] == "completion":
        return [shell for shell in sorted(COMPLETION) if shell.startswith(words[-1])]
    if words[1] == "generate" and words[-1].startswith("-"):
        options = ["--prompt", *(f"--{key.replace('_', '-')}" for key in SAMPLING)]
        return [option for option in options if option.startswith(words[-1])]
    if words[1] == "study" and len(words) == 3:
        return [action for action in STUDY if action.startswith(words[-1])]
    if words[1] == "study" and (len(words) == 4 or words[2] == "report"):
        from recurlab.studies.folder import study_names

        return [name for name in study_names() if name.startswith(words[-1])]
    if words[1] in ("report", "generate", "convert", "export"):
        return []  # bash then completes the names of files
    if words[1] == "sweep":
        from recurlab.sweep.settings import complete_sweep

        return complete_sweep(words[-1], words[2:-1])
    if words[1] == "bench":
        from recurlab.bench.settings import complete_bench

        return complete_bench(words[-1])
    from recurlab.completion import complete

    return complete(words[-1], words[2:-1])
