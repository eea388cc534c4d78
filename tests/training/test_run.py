"""What is refused before a run is begun."""

import pytest

STATEFUL = ["train", "data=adding", "data.length=5", "model.hidden_size=3", "model.stateful=true",
            "trainer.accelerator=cpu"]  # fmt: skip
SIZES = {"train": 8, "valid": 6, "test": 6}  # of batches by 4 and by 3


@pytest.mark.parametrize(
    ("split", "words", "key"),
    [("train", "training", "batch_size=4"), ("valid", "validation", "eval_batch_size=3"),
     ("test", "test", "eval_batch_size=3")],
)  # fmt: skip
def test_stateful_layers_need_batches_of_one_size_in_every_split(recurlab, tmp_path, split, words, key):
    sizes = {**SIZES, split: SIZES[split] + 1}
    overrides = [f"data.{name}_size={size}" for name, size in sizes.items()]
    code, _, error = recurlab(*STATEFUL, *overrides, "data.batch_size=4", "data.eval_batch_size=3")
    assert (code, error) == (
        2, f"recurlab: data.{key}: stateful layers need it to divide the {sizes[split]} {words} sequences\n"
    )  # fmt: skip
    assert not (tmp_path / "runs").exists()
