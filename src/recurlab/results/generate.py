"""Text written by a trained language model, read back from its run directory."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recurlab.data import DATA
from recurlab.data.vocabulary import Vocabulary
from recurlab.errors import RecurlabError, check_integer
from recurlab.results.sampling import Sampling
from recurlab.training.run_dir import RunDir, read_json

if TYPE_CHECKING:
    from recurlab.results.sampler import Sampler


class TextModel:
    """The language model of a run, with its best weights, on the CPU.

    Args:
        path: the run directory. torch is imported and the weights are read when something is to be
            written.

    Raises:
        RecurlabError: for a directory that is no run, or a run of something else than a text.
    """

    def __init__(self, path: str | Path) -> None:
        self.run = RunDir.open(path)
        config = self.run.load_config()
        data = config.get("data")
        if not isinstance(data, Mapping):
            raise RecurlabError(f"{self.run.config}: data={data!r}: must be a mapping")
        level = self._level(data, config.get("plugins"))
        names = read_json(self.run.facts).get("names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise RecurlabError(f"{self.run.facts}: names: must be the list of the symbols")
        self.vocabulary = Vocabulary(names, level)
        self._documents = str(data.get("documents", "stream"))

    def write(self, prompt: str = "", sampling: Sampling | None = None) -> Iterator[str]:
        """Return the prompt, as the model reads it, and then piece by piece what it writes.

        Args:
            prompt: what the text begins with; "" is the begin of a line.
            sampling: how symbols are drawn.

        Raises:
            RecurlabError: for a prompt of unknown symbols, too large a top_k, or a damaged
                checkpoint.
        """
        sampling, known = sampling or Sampling(), self.vocabulary
        symbols = known.encode(prompt, "prompt")
        if sampling.top_k is not None:
            check_integer("top_k", sampling.top_k, high=len(known.names) - (known.unknown is not None))
        return self._pieces(symbols, self._sampler.symbols(symbols, sampling))

    def _pieces(self, prompt: list[int], drawn: Iterator[int]) -> Iterator[str]:
        known, before = self.vocabulary, prompt[-1] if prompt else self.vocabulary.before
        yield known.decode(prompt)
        for symbol in drawn:
            yield known.decode([before, symbol]).removeprefix(known.decode([before]))
            before = symbol

    @cached_property
    def _sampler(self) -> "Sampler":
        from recurlab.results.runs import load_run
        from recurlab.results.sampler import Sampler

        return Sampler(load_run(self.run.path), self.vocabulary, self._documents)

    def _level(self, data: Any, plugins: Any) -> str:
        name = data.get("name")
        try:
            DATA.check("data.name", name)
        except RecurlabError as error:
            raise RecurlabError(f"{error}; the run imported plugins={plugins or []}") from error
        if (problem := DATA[str(name)].problem) != "language":
            raise RecurlabError(f"run={str(self.run.path)!r}: no language model, its data.name={name!r} is {problem}")
        if "level" not in data:
            raise RecurlabError(f"data.name={name!r}: has no data.level, char or word, that says what its symbols are")
        return str(data["level"])
