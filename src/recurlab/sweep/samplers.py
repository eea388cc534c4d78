"""Samplers, which choose the values of a trial, and pruners, which end it early."""

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
    "grid": lambda seed: RandomSampler(seed=seed),  # not asked: each trial has its point
    "nsgaii": lambda seed: NSGAIISampler(seed=seed),
}
PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "none": NopPruner,
    "median": MedianPruner,
    "halving": lambda: SuccessiveHalvingPruner(min_resource=1),  # in validations
    "hyperband": HyperbandPruner,
}


class TrialSampler(BaseSampler):
    """A sampler that is seeded for each trial by the trial's number.

    So workers with the same seed draw different values, and a restarted worker goes on as it would
    have.

    Args:
        name: of the sampler.
        seed: of the sweep.
        space: the parameters.
        position: gives the position of a trial among the new ones, by its number.
    """

    def __init__(self, name: str, seed: int, space: tuple[Parameter, ...], position: Callable[[int], int]) -> None:
        self._make, self._seed, self._position = SAMPLERS[name], seed, position
        self._grid = points(space) if name == "grid" else None
        self._keys = [parameter.key for parameter in space]
        self._inner = self._make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seed the sampler for this trial."""
        seed = np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0]
        self._inner = self._make(int(seed))
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that are drawn jointly."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw the parameters of a joint space."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw the value of one parameter."""
        if self._grid is not None:
            point = self._grid[self._position(trial.number) % len(self._grid)]
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
