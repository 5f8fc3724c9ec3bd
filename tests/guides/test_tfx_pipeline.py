"""The example of a TFX pipeline, run for real; what it leaves is taken by our components."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest

from pipeparts.components.feature_engineering.transform_tft.logic import transform_tft
from pipeparts.runtime.serving.transform import Transform
from pipeparts.runtime.tables import Table, write_table
from pipeparts.runtime.tfdv import read_schema, read_statistics

pytestmark = pytest.mark.tfx

ROOT = Path(__file__).parents[2]
COLUMNS = ["carrier", "origin", "distance", "hour", "late"]


@pytest.fixture(scope="module")
def flights() -> pa.Table:
    """The flights that have a label."""
    rows = pyarrow.csv.read_csv(ROOT / "tests" / "data" / "flights.csv").select(COLUMNS)
    return rows.filter(pc.is_valid(rows["late"]))


@pytest.fixture(scope="module")
def root(flights: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline root after a run."""
    work = tmp_path_factory.mktemp("tfx")
    (work / "data").mkdir()
    # Arrow's own writer puts the names into quotes, which TFX's reader takes for a part of them.
    with (work / "data" / "flights.csv").open("w", newline="") as file:
        csv.writer(file).writerows([flights.column_names, *zip(*flights.to_pydict().values(), strict=True)])
    examples = ROOT / "docs" / "examples"
    done = subprocess.run(
        [sys.executable, str(examples / "tfx_flights.py"), str(work / "data"), str(work)],
        env={**os.environ, "PYTHONPATH": f"{examples}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    return work / "root"


def artifact(root: Path, name: str) -> Path:
    """The one artifact of a component's output: TFX puts it into a folder with the run's number."""
    (found,) = (path for path in (root / name).iterdir() if path.name.isdigit())
    return found


def test_it_ends_with_a_pushed_model_that_was_blessed(root: Path) -> None:
    assert (artifact(root, "Evaluator/blessing") / "BLESSED").exists()
    assert list((root.parent / "pushed").rglob("saved_model.pb"))


def test_statistics_and_schema_are_read(root: Path) -> None:
    (schema_file,) = artifact(root, "SchemaGen/schema").rglob("schema.pbtxt")
    schema = read_schema(schema_file.parent)
    assert sorted(feature.name for feature in schema.feature) == sorted(COLUMNS)
    (statistics_folder,) = artifact(root, "StatisticsGen/statistics").glob("Split-train")
    statistics = read_statistics(statistics_folder)
    assert statistics.datasets[0].num_examples > 1_000


def test_its_transform_graph_transforms_a_table_as_tfx_did(root: Path, flights: pa.Table, tmp_path: Path) -> None:
    import tensorflow as tf
    import tensorflow_transform as tft

    write_table(tmp_path / "table", flights, source="flights.csv")
    metadata, info = transform_tft(
        table_path=tmp_path / "table",
        table_uri="",
        transform_path=tmp_path / "transform",
        transform_graph_path=tmp_path / "graph",
        transformed_table_path=tmp_path / "transformed",
        transformed_examples_path=tmp_path / "examples",
        page_path=tmp_path / "page.html",
        label="late",
        fitted_graph_path=artifact(root, "Transform/transform_graph"),
    )
    assert metadata["origin"] == "TFX"
    assert info.rows == flights.num_rows
    transform = Transform.load(tmp_path / "transform")
    assert (transform.numeric_names, transform.category_names) == (["distance", "hour"], ["carrier"])
    spec = tft.TFTransformOutput(str(tmp_path / "graph")).transformed_feature_spec()
    theirs = []
    files = [str(file) for file in artifact(root, "Transform/transformed_examples").rglob("*.gz")]
    for record in tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator():
        row = tf.io.parse_single_example(record, spec)
        theirs.append(tuple(round(float(row[name].numpy().item()), 4) for name in sorted(spec)))
    rows = Table(tmp_path / "transformed").read()
    ours = [tuple(round(float(row[name]), 4) for name in sorted(spec)) for row in rows.to_pylist()]
    assert sorted(ours) == sorted(theirs)
