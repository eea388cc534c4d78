"""A trained language model writes, with the numbers that it was trained for."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import recurlab as package
from command_process import only_run
from command_process import run as run_command
from recurlab.cli import main
from recurlab.data.batches import Streams
from recurlab.data.data import Stream
from recurlab.data.vocabulary import Vocabulary
from recurlab.results.generate import TextModel
from recurlab.results.sampling import Sampling
from recurlab.training.run_dir import read_json

COMMAND = [sys.executable, "-c", "import sys; from recurlab.cli import main; sys.exit(main(sys.argv[1:]))"]
BOOK = "".join(
    f"a {word} and a {word} sat\non a mat of a {word}.\n\n{word * 2} is a {word}.\n"
    for word in ("cat", "owl", "bee", "yak", "emu", "cat", "ox") * 9
)
QUICK = [
    "data=text", "data.dir=.", "data.train=book.txt", "data.batch_size=3", "data.eval_batch_size=2", "data.bptt=7",
    "model.hidden_size=6", "trainer.max_steps=3", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false",
    "trainer.precision=64-true", "backend=eager",
]  # fmt: skip
CASES = {
    "characters": ["model.stateful=true"],
    "words": ["data.level=word", "cell=lstm", "model.num_layers=2", "model.zoneout=0.3", "model.dropout=0.4"],
    "lines": ["data.train=lines.txt", "data.documents=line", "model=batchnorm", "model.encoder=one_hot"],
    "paragraphs": ["data.documents=paragraph", "model=residual", "model.num_layers=4", "cell=indrnn"],
    "words in paragraphs": ["data.level=word", "data.documents=paragraph", "data.min_count=100"],
}


def train(folder: Path, *overrides: str) -> None:
    """Train on a small book in a folder that has nothing else to say."""
    (folder / "book.txt").write_text(BOOK)
    (folder / "greek.txt").write_text(BOOK.replace("a", "\N{GREEK SMALL LETTER ALPHA}"), "utf-8")
    (folder / "lines.txt").write_text(BOOK.replace("\n\n", "\n"))
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.chdir(folder)
        assert main(["train", *QUICK, *overrides]) == 0


@pytest.fixture(scope="module")
def folders() -> dict[tuple[str, ...], Path]:
    """Where this module has trained with which overrides."""
    return {}


@pytest.fixture
def trained(folders, recurlab, tmp_path, tmp_path_factory):
    """Return a function that returns the directory of a run with some overrides, a copy of the only one."""

    def run_of(*overrides: str) -> Path:
        if overrides not in folders:
            train(folder := tmp_path_factory.mktemp("trained"), *overrides)
            folders[overrides] = folder
        shutil.copytree(folders[overrides], tmp_path, dirs_exist_ok=True)
        (status,) = tmp_path.rglob("status.json")
        return status.parent

    return run_of


def starts_of(text: list[str], end: str, documents: str) -> list[int]:
    """Where documents begin, symbol by symbol: after a line's end, or two."""
    tail = {"line": [end], "paragraph": [end, end]}.get(documents)
    return [0, *(place for place in range(1, len(text)) if tail and text[max(0, place - len(tail)) : place] == tail)]


@torch.no_grad()
def scores_of(run: Path, vocabulary: Vocabulary, symbols: list[int], documents: str = "stream") -> torch.Tensor:
    """The scores (S, V) before each of the symbols, read at once as in training."""
    names = [vocabulary.names[symbol] for symbol in symbols]
    starts = np.array(starts_of(names, "\n" if vocabulary.level == "char" else "<eos>", documents))
    stream = Streams(Stream(np.array(symbols), starts, vocabulary.before), 1, whole=True)
    batch = stream[0, len(symbols)]
    return package.load_run(run)(batch.inputs, resets=batch.resets)[0]


@pytest.mark.parametrize("case", CASES)
def test_each_symbol_is_drawn_from_what_the_model_says_of_the_whole_text_before_it(trained, case):
    run = trained(*CASES[case])
    documents = next((word.split("=")[1] for word in CASES[case] if "documents" in word), "stream")
    model, sampling = TextModel(run), Sampling(length=60, temperature=0.7, seed=5)
    vocabulary = model.vocabulary
    assert vocabulary.before != 0
    for prompt in ("", "is a\n", "a cat\nsat on a mat of" if documents == "line" else "a cat\n\n\nsat\n\na mat of"):
        symbols, given = vocabulary.encode("".join(model.write(prompt, sampling))), len(vocabulary.encode(prompt))
        assert len(symbols) == given + 60
        scores = scores_of(run, vocabulary, symbols, documents)[given:] / 0.7
        if vocabulary.unknown is not None:
            scores[:, vocabulary.unknown] = -torch.inf
        generator = torch.Generator().manual_seed(5)
        wanted = [int(torch.multinomial(weights, 1, generator=generator)) for weights in scores.softmax(-1)]
        assert symbols[given:] == wanted


def test_documents_begin_often_enough_for_that_test_to_mean_something(trained):
    text = "".join(TextModel(trained(*CASES["words in paragraphs"])).write("", Sampling(60, 0.7, seed=5)))
    assert text.strip().count("\n\n") > 2


def test_the_most_likely_symbols_are_drawn_as_often_as_their_shares_say(trained):
    run = trained()
    model = TextModel(run)
    scores = scores_of(run, model.vocabulary, model.vocabulary.encode("cat"))[2]
    best = scores.topk(3)
    shares = dict(zip(best.indices.tolist(), (best.values / 0.1).softmax(0).tolist(), strict=True))
    drawn = ["".join(model.write("ca", Sampling(1, 0.1, top_k=3, seed=seed)))[2:] for seed in range(400)]
    for symbol, share in shares.items():
        found = drawn.count(model.vocabulary.names[symbol])
        assert abs(found - 400 * share) < 5 * (400 * share * (1 - share)) ** 0.5
    assert {model.vocabulary.index[letter] for letter in drawn} <= set(shares)


@pytest.mark.parametrize("sampling", [Sampling(40, 1e-300), Sampling(40, 50.0, top_k=1)])
def test_a_temperature_near_zero_and_one_candidate_take_the_most_likely(trained, sampling):
    run = trained()
    model = TextModel(run)
    symbols = model.vocabulary.encode("".join(model.write("", sampling)))
    assert symbols == scores_of(run, model.vocabulary, symbols).argmax(-1).tolist()


def test_the_unknown_symbol_is_read_but_never_written(trained):
    run = trained("data.level=word", "data.min_count=100")
    model = TextModel(run)
    assert len(model.vocabulary.names) == 3
    prompt, *pieces = model.write("a zebra", Sampling(300))
    assert prompt == "a <unk>"
    assert "<unk>" not in "".join(pieces)
    with pytest.raises(package.RecurlabError, match=rf"top_k=\d+: .* at most {len(model.vocabulary.names) - 1}$"):
        model.write("", Sampling(3, top_k=len(model.vocabulary.names)))


def test_a_seed_gives_a_text_and_leaves_the_generator_of_torch_alone(trained):
    model = TextModel(trained())
    model.write()
    state = torch.get_rng_state()
    first, again, other = (list(model.write("owl", Sampling(50, seed=seed))) for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == 51  # the prompt, then each symbol as it comes
    assert torch.equal(torch.get_rng_state(), state)


def test_a_run_in_half_precision_and_one_of_another_machine_s_backend_write(trained):
    run = trained("trainer.precision=bf16-true")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("backend: eager", "backend: cudnn"))
    assert len("".join(TextModel(run).write("", Sampling(20)))) == 20


def test_the_command_prints_the_prompt_and_the_text(trained, recurlab):
    run = trained()
    code, out, err = recurlab(
        "generate", str(run), "--prompt", "a cat", "--length", "30", "--seed", "3", "--top-k", "4"
    )
    assert (code, err) == (0, "")
    assert out == "".join(TextModel(run).write("a cat", Sampling(30, top_k=4, seed=3))) + "\n" * (out[-2] != "\n")
    assert out.startswith("a cat")
    assert recurlab("generate", str(run), "--prompt", "a cat", "--length", "30", "--temperature", "0.1")[1] != out


@pytest.mark.slow
def test_a_reader_that_has_enough_is_no_error(trained):
    command = [*COMMAND, "generate", str(trained()), "--length", "100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_bad_input_is_one_line(trained, recurlab):
    run = trained()
    known = len(read_json(run / "data.json")["names"])
    for options, message in {
        ("--prompt", "CAT"): f"prompt: 'C', char 1, is not in the vocabulary of {known}; did you mean 'c'?",
        ("--length", "0"): "length=0: must be a whole number of at least 1",
        ("--temperature", "0"): "temperature=0.0: must be a number, greater than 0",
        ("--temperature", "nan"): "temperature=nan: must be a number, greater than 0",
        ("--top-k", "0"): "top_k=0: must be a whole number of at least 1",
        ("--top-k", "99"): f"top_k=99: must be a whole number of at least 1 and at most {known}",
        ("--seed", "-1"): "seed=-1: must be a whole number of at least 0 and at most 9223372036854775807",
        ("seed=1",): "'seed=1': only plugins=[...] can be set here",
        ("plugins=mine",): "'plugins=mine': only plugins=[...] can be set here",
        ("another",): f"run='{run} another': generate takes one run",
    }.items():
        assert recurlab("generate", str(run), *options) == (2, "", f"recurlab: {message}\n")
    code, _, err = recurlab("generate", str(run), "--length", "many")
    assert (code, err.count("\n")) == (2, 1)


def test_a_run_that_is_no_language_model(recurlab, quick, tmp_path):
    assert recurlab("train", *quick)[0] == 0
    (status,) = tmp_path.rglob("status.json")
    code, out, err = recurlab("generate", str(status.parent))
    assert (code, out) == (2, "")
    assert err.endswith("no language model, its data.name='adding' is regression\n")


def test_a_model_that_reads_backwards_too(trained):
    run = trained()
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("bidirectional: false", "bidirectional: true"))
    with pytest.raises(package.RecurlabError, match=r"^model\.bidirectional=True: the reverse direction would read"):
        TextModel(run).write()


def test_damaged_files_are_one_line(trained):
    run = trained()
    best = run / "checkpoints" / "best.ckpt"
    best.write_bytes(best.read_bytes()[:99])
    with pytest.raises(package.RecurlabError, match=r"best\.ckpt: not a checkpoint of this model"):
        TextModel(run).write()
    best.write_bytes(b"")
    with pytest.raises(package.RecurlabError, match=r"not a checkpoint of this model: \w"):
        TextModel(run).write()
    (run / "data.json").write_text('{"names": [1]}')
    with pytest.raises(package.RecurlabError, match=r"data\.json: names: must be the list of the symbols"):
        TextModel(run)
    for damaged in ("'text'", "[]"):
        (run / "config.yaml").write_text(f"data: {damaged}")
        with pytest.raises(package.RecurlabError, match=rf"config\.yaml: data={re.escape(damaged)}: must be a mapping"):
            TextModel(run)


@pytest.mark.slow
def test_what_the_terminal_has_no_characters_for_is_written_as_an_escape(trained):
    run = trained("data.train=greek.txt")
    command = [*COMMAND, "generate", str(run), "--prompt", "\N{GREEK SMALL LETTER ALPHA}", "--length", "1"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"\\u03b1")


def test_a_text_of_a_user_s_code_is_written_once_it_is_imported(tmp_path):
    (tmp_path / "own_text.py").write_text(
        "import recurlab\nfrom dataclasses import dataclass\nfrom recurlab.data.text import Text\n"
        "@recurlab.register_data('own_text')\n@dataclass(frozen=True)\nclass Own(Text):\n    pass\n"
    )
    train(tmp_path, "plugins=[own_text]", "data.name=own_text")
    command, said = ["generate", str(only_run(tmp_path).path), "--length", "9"], tmp_path / "said"
    run_command(tmp_path, command)
    assert "the run imported plugins=['own_text']" in said.read_text()
    said.unlink()
    assert run_command(tmp_path, [*command, "plugins=[own_text]"]) == 0
    assert len(said.read_text()) >= 9
    assert "recurlab: " not in said.read_text()
