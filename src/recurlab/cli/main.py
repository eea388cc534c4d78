"""What a command line runs, and how its errors are said.

Nothing here imports torch before the config is valid.
"""

import atexit
import gc
import os
import re
import sys
from collections.abc import Sequence

from recurlab.cli import commands, study
from recurlab.cli.parser import COMMANDS, COMPLETION, LOOKS, SAMPLING, completions, config_dir, make_parser
from recurlab.errors import Preempted, RecurlabError, one_line, path_of, say, unknown
from recurlab.plugins import configs_in
from recurlab.process import prepare_process

# How torch says it, which has no MemoryError.
OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory|Storage size calculation overflowed")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return 0, or 2 for bad input and failed runs, said in one line on the standard error.

    `bench` returns 1 where a candidate's numbers are wrong or it fails.
    """
    if argv is None:
        atexit.register(gc.freeze)  # nothing is looked for in what ends with the process
    arguments = list(sys.argv[1:] if argv is None else argv)
    prepare_process()
    try:
        completing = arguments[:1] == ["_complete"]
        with configs_in(config_dir(arguments[1].split(" ") if completing else arguments)):
            if not completing:
                return _dispatch(arguments)
            for word in completions(arguments[1]):
                print(word)
            return 0
    except RecurlabError as error:
        say(error)
        return 2
    except MemoryError as error:
        say(f"out of memory: {error}")
        return 2
    except RuntimeError as error:
        if not OUT_OF_MEMORY.search(str(error)):
            raise
        say(f"out of memory: {one_line(error):.200}")
        return 2
    except Preempted as stop:
        say(f"{stop}; {stop.hint}")
        return 128 + stop.signum
    except BrokenPipeError:  # who reads has enough, as head; Python's own last flush must find another place
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as stop:
        say(f"interrupted; {stop}")
        return 130


def _apart(command: str, words: list[str]) -> tuple[list[str], list[str]]:
    """Return the paths among words, and those that are key=value: a path that is there may have = in it."""
    sign = "plugins=" if command == "export" else ".*="  # the file of an export is yet to be made
    overrides = [word for word in words if re.match(sign, word, re.DOTALL) and not _is_there(word)]
    paths = [word for word in words if word not in overrides]
    if not paths:
        raise RecurlabError(f"{command} {' '.join(words)}: needs the directory of a run")
    return paths, overrides


def _is_there(word: str) -> bool:
    try:
        return path_of("run", word).exists()
    except RecurlabError:  # of a name that no file can have
        return False


def _dispatch(arguments: list[str]) -> int:
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise unknown("command", arguments[0], COMMANDS)
    parsed, rest = make_parser().parse_known_args(arguments)
    for word in rest:
        if word.startswith("-"):
            raise RecurlabError(f"{word!r}: unknown option; see recurlab {parsed.command} --help")
    if parsed.command == "train":
        return commands.train([*parsed.overrides, *rest], parsed.multirun)
    if parsed.command in ("evaluate", "report", "generate", "export"):
        runs, overrides = _apart(parsed.command, [*parsed.run, *rest])
        if parsed.command == "evaluate":
            return commands.evaluate(runs, overrides)
        if parsed.command == "export":
            return commands.export(runs, parsed.inputs, overrides)
        commands.import_plugins(overrides)
        if parsed.command == "report":
            return commands.report(runs)
        return commands.generate(runs, parsed.prompt, {key: getattr(parsed, key) for key in SAMPLING})
    if parsed.command == "explain":
        return commands.explain([*parsed.overrides, *rest], parsed.source)
    if parsed.command == "sweep":
        return commands.sweep([*parsed.words, *rest])
    if parsed.command == "bench":
        return commands.bench([*parsed.settings, *rest])
    if parsed.command == "convert":
        return commands.convert(vars(parsed), rest)
    if parsed.command == "study":
        if parsed.action == "run":
            return study.study_run(parsed.study, parsed.scale, [*parsed.overrides, *rest])
        if parsed.action in LOOKS:
            look = {"status": study.study_status, "collect": study.study_collect}[parsed.action]
            return look(parsed.study, parsed.scale, [*parsed.overrides, *rest])
        if parsed.action == "report":
            return study.study_report([*parsed.study, *rest], parsed.check)
        return study.study_list()
    print(COMPLETION[parsed.shell], end="")
    return 0
