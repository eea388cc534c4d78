"""Who chooses the values of a trial, and who ends it early."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from recurlab.sweep.space import Choices, Parameter, Value, points

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
    "grid": lambda seed: RandomSampler(seed=seed),  # draws nothing: each trial is given its point
    "nsgaii": lambda seed: NSGAIISampler(seed=seed),
}
PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "none": NopPruner,
    "median": MedianPruner,
    "halving": lambda: SuccessiveHalvingPruner(min_resource=1),  # a validation
    "hyperband": HyperbandPruner,
}


class TrialSampler(BaseSampler):
    """Begins anew with every trial, from a seed that follows from the trial's number.

    So workers with the same seed do not draw the same, and one worker that is started again goes on as it would have.

    Args:
        name: of the sampler.
        seed: of all.
        space: what is searched.
        place: gives the number of a trial among those that are new.
    """

    def __init__(self, name: str, seed: int, space: tuple[Parameter, ...], place: Callable[[int], int]) -> None:
        self._make, self._seed, self._place = SAMPLERS[name], seed, place
        self._grid = points(space) if name == "grid" else None
        self._keys = [parameter.key for parameter in space]
        self._inner = self._make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Begin anew."""
        seed = np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0]
        self._inner = self._make(int(seed))
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what is drawn together."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw what is drawn together."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a value."""
        if self._grid is not None:
            point = self._grid[self._place(trial.number) % len(self._grid)]
            return point[self._keys.index(param_name)]
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Take note of how a trial has ended."""
        self._inner.after_trial(study, trial, state, values)


def suggest_value(trial: Trial, parameter: Parameter) -> Value:
    """Return the value of a parameter in a trial."""
    key = parameter.key
    if isinstance(parameter, Choices):
        return trial.suggest_categorical(key, parameter.words)
    if parameter.whole:
        step = 1 if parameter.step is None else round(parameter.step)
        return trial.suggest_int(key, round(parameter.low), round(parameter.high), step=step, log=parameter.log)
    return trial.suggest_float(key, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
