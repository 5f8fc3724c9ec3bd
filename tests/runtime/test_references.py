"""What a model carries for a drift report: damage is named, and what an earlier release lacks is not."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeparts.errors import ContractError
from pipeparts.runtime.models import (
    PREDICTION_PROFILE_FILE,
    PREDICTION_SAMPLE_FILE,
    PROFILE_FILE,
    TRAINING_SAMPLE_FILE,
    read_reference,
)
from pipeparts.runtime.profiles import write_profile
from pipeparts.runtime.profiling import profile_of
from pipeparts.runtime.tables import Table, write_table

ROWS = pa.table({"x": [1.0, 2.0, None], "label": ["a", "b", "a"]})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_table(tmp_path / "table", ROWS, source="a test")
    folder = tmp_path / "model"
    for name in (PROFILE_FILE, PREDICTION_PROFILE_FILE):
        write_profile(folder / name, profile_of(Table(tmp_path / "table")))
    for name in (TRAINING_SAMPLE_FILE, PREDICTION_SAMPLE_FILE):
        pq.write_table(ROWS, folder / name)
    return folder


def test_all_of_it_is_read(model: Path) -> None:
    reference = read_reference(model)
    assert reference.profile.rows == 3
    assert reference.profile == reference.prediction_profile
    assert reference.sample is not None
    assert reference.sample.equals(ROWS)
    assert reference.sample.equals(reference.prediction_sample)


def test_an_earlier_release_carries_the_profile_alone(model: Path) -> None:
    for name in (TRAINING_SAMPLE_FILE, PREDICTION_PROFILE_FILE, PREDICTION_SAMPLE_FILE):
        (model / name).unlink()
    reference = read_reference(model)
    assert reference.profile.rows == 3
    assert (reference.prediction_profile, reference.sample, reference.prediction_sample) == (None, None, None)


def test_a_folder_without_a_profile(model: Path, tmp_path: Path) -> None:
    (model / PROFILE_FILE).unlink()
    for folder, received in ((model, "a folder without it"), (tmp_path / "none", "no folder")):
        with pytest.raises(ContractError, match="no training profile") as caught:
            read_reference(folder)
        assert caught.value.facts["received"] == received
        assert caught.value.facts["where"] == str(folder)
        assert PROFILE_FILE in caught.value.facts["allowed"]


@pytest.mark.parametrize("name", [TRAINING_SAMPLE_FILE, PREDICTION_SAMPLE_FILE])
@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "holed", "a folder"])
def test_a_damaged_sample(model: Path, name: str, damage: str) -> None:
    file = model / name
    data = file.read_bytes()
    if damage == "a folder":
        file.unlink()
        file.mkdir()
    else:
        holed = data[:4] + bytes(60) + data[64:]
        file.write_bytes({"empty": b"", "truncated": data[:-30], "text": b"no Parquet at all", "holed": holed}[damage])
    with pytest.raises(ContractError, match="a damaged sample") as caught:
        read_reference(model)
    assert caught.value.facts["where"] == str(file)


@pytest.mark.parametrize("name", [PROFILE_FILE, PREDICTION_PROFILE_FILE])
@pytest.mark.parametrize(
    ("text", "headline"),
    [
        ("", "a profile is not JSON"),
        ('{"format": "pipeparts.profile/1", "rows": ', "a profile is not JSON"),
        ('{"format": "other"}', "not a profile"),
        ('{"format": "pipeparts.profile/1", "rows": 1}', "a damaged profile"),
    ],
)
def test_a_damaged_profile(model: Path, name: str, text: str, headline: str) -> None:
    (model / name).write_text(text)
    with pytest.raises(ContractError) as caught:
        read_reference(model)
    assert caught.value.headline == headline
    assert str(model / name) in caught.value.facts["where"]
