"""A job is named after what its outcome depends on, and after nothing else."""

import pytest
from omegaconf import OmegaConf

from recurlab.compose import compose
from recurlab.training.job import Identity, digest, leaves

# What has no effect on the numbers of a run, by what its keys begin with.
WITHOUT_EFFECT = (
    "output_dir", "resume", "launcher", "logger", "plugins", "data.dir", "data.verify", "trainer.num_workers",
    "trainer.enable_progress_bar", "trainer.checkpoint_every_n_steps", "trainer.stall_timeout",
)  # fmt: skip


@pytest.fixture(scope="module")
def resolved():
    """A config that has every key of WITHOUT_EFFECT."""
    return compose(["experiment=mnist_pixel/gru", "logger=wandb", "launcher=slurm"])[1]


def changed(config, key, value):
    other = OmegaConf.create(OmegaConf.to_container(config))
    OmegaConf.update(other, key, value, force_add=True)
    return other


def test_every_key_names_the_job_but_those_without_effect(resolved):
    keys = list(leaves(resolved))
    assert all(any(key.startswith(part) for key in keys) for part in WITHOUT_EFFECT)
    same = {key for key in keys if digest(changed(resolved, key, "another")) == digest(resolved)}
    assert same == {key for key in keys if key.startswith(WITHOUT_EFFECT)}


@pytest.mark.parametrize("group", ["trainer", "model", "loss", "model.init"])
@pytest.mark.parametrize("off", [None, False, 0, "", [], {}])
def test_what_is_off_does_not_name_a_job_so_that_an_option_can_be_added(resolved, group, off):
    assert digest(changed(resolved, f"{group}.new", off)) == digest(resolved)
    assert digest(changed(resolved, f"{group}.new", 1)) != digest(resolved)


@pytest.mark.parametrize("key", ["trainer.stopping_threshold", "model.init.gate_bias"])
def test_a_zero_is_not_off_where_none_is_another_value(resolved, key):
    assert digest(changed(resolved, key, 0)) != digest(changed(resolved, key, None))


def test_further_keys_may_differ(resolved):
    longer = changed(resolved, "trainer.max_epochs", 1000)
    assert digest(longer) != digest(resolved)
    assert digest(longer, but=("trainer.max_epochs",)) == digest(resolved, but=("trainer.max_epochs",))


@pytest.mark.parametrize(
    ("data", "name", "known"),
    [("f1", "c1-f1", {"c1-f1", "old"}), ("", "c1", {"c1", "old"}), (None, "c1", {"c1", "old", "c1-f1", "c1-f2"})],
)  # fmt: skip
def test_a_name_is_of_a_job_by_its_config_and_its_files(data, name, known):
    """Where the files are not here, by its config alone."""
    job = Identity("c1", data, {}, former="old")
    assert job.name == name
    assert {each for each in ("c1", "c2", "c1-f1", "c1-f2", "c2-f1", "old", "") if job.has(each)} == known


def test_the_values_of_a_config_have_their_full_names():
    config = OmegaConf.create({"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": None, "g": {}})
    assert leaves(config) == {"a.b.c": 1, "a.d": [1, {"e": 2}], "f": None}
    assert leaves(config, but=("a.b", "f")) == {"a.d": [1, {"e": 2}]}
