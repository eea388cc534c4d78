import numpy as np
import pytest

from recurlab.data.data import Ragged
from recurlab.data.ragged import standardised, take

LENGTHS = np.array([3, 1, 4, 2])
INPUTS = np.arange(20, dtype=np.float32).reshape(10, 2)
PARTS = np.split(INPUTS, np.cumsum(LENGTHS)[:-1])


@pytest.mark.parametrize("rows", [[2, 0], [3], [1, 1, 3], [0, 1, 2, 3], [False, True, False, True]])
@pytest.mark.parametrize("per_step", [False, True])
def test_take_gives_each_sequence_with_its_length_and_target(rows, per_step):
    targets = -INPUTS[:, 0] if per_step else np.array([10, 11, 12, 13])
    found = take(Ragged(INPUTS, LENGTHS, targets, per_step), np.array(rows))
    numbers = np.arange(4)[np.array(rows)]
    assert np.array_equal(found.inputs, np.concatenate([PARTS[i] for i in numbers]))
    assert found.lengths.tolist() == LENGTHS[numbers].tolist()
    wanted = -found.inputs[:, 0] if per_step else 10 + numbers
    assert np.array_equal(found.targets, wanted)
    assert found.per_step is per_step


def test_standardised_uses_the_statistics_of_training_alone():
    rng = np.random.default_rng(0)
    train, other = rng.normal([3, -50], [2, 0.1], (400, 2)), rng.normal(0, 1, (7, 2))
    scaled = standardised(train, train)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(standardised(train, other), (other - train.mean(axis=0)) / train.std(axis=0), rtol=1e-5)


def test_a_channel_that_is_constant_in_training_is_only_shifted():
    train = np.full((7, 1), 0.1, np.float32)
    np.testing.assert_allclose(standardised(train, np.array([[0.1], [2.1]], np.float32)), [[0], [2]], atol=1e-6)
