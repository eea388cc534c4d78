"""The corpora that are text under a name of their own."""

import os
from dataclasses import fields

import pytest

from recurlab.compose import compose
from recurlab.data.text import Text

REAL = os.environ.get("RECURLAB_DATA")
SPLITS = ("train", "valid", "test")
PRESETS = {
    "tiny_shakespeare": ([1_003_854, 55_770, 55_770], 65),
    "ptb_char": ([5_017_482, 393_042, 442_423], 50),
    "ptb_word": ([929_589, 73_760, 82_430], 10_000),
    "gutenberg_char": ([5_321_156, 303_131, 321_228], 83),
    "gutenberg_word": ([961_015 + 40_255, 54_583 + 2_241, 57_440 + 2_247], 10_001),
}


@pytest.mark.parametrize("preset", ["text", *PRESETS])
def test_presets_name_every_option(preset):
    config, composed = compose([f"data={preset}"])
    assert isinstance(config.data, Text)
    assert set(composed.data) == {"name", *(field.name for field in fields(Text))}
    if preset == "text":
        assert config.data == Text()
    else:
        files = {name for name in (config.data.train, config.data.valid, config.data.test) if name}
        assert set(config.data.sha256) == files


@pytest.mark.data
@pytest.mark.skipif(REAL is None, reason="RECURLAB_DATA points at no real data")
@pytest.mark.parametrize("preset", PRESETS)
def test_the_real_files_have_their_published_counts(preset, monkeypatch):
    monkeypatch.setenv("RECURLAB_DATA", REAL)
    config, _ = compose([f"data={preset}"])
    counts = [len(config.data.split(name, 0, 0).symbols) for name in SPLITS]
    assert (counts, config.data.input_size) == PRESETS[preset]
