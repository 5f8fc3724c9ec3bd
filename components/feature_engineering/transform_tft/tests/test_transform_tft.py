"""Tests of the logic of `transform_tft`: its fits against those of `fit_features`, and what TFX users get."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import yaml

from pipeparts.components.feature_engineering.fit_features.logic import fit_features
from pipeparts.components.feature_engineering.transform_tft import logic
from pipeparts.errors import ContractError, DataError, InputError
from pipeparts.runtime.serving.transform import Transform
from pipeparts.runtime.tables import Table, write_table

pytestmark = pytest.mark.tfx

FLIGHTS = Path(__file__).parents[4] / "tests" / "data" / "flights.csv"
EXAMPLE = yaml.safe_load((Path(__file__).parents[1] / "example.yaml").read_text())["parameters"]
EVERY_KIND = {
    "carrier": {"kind": "category", "min_count": 20},
    "dest": {"kind": "category", "max_values": 7, "oov_buckets": 3},
    "origin": {"kind": "category", "encode": "one_hot"},
    "tailnum": {"kind": "category", "encode": "hash", "buckets": 50},
    "route": {"kind": "category", "columns": ["origin", "dest"], "min_count": 1},
    "seats": {"kind": "category", "min_count": 1},
    "wind_gust": "numeric",
    "temp": {"kind": "numeric", "scale": "quantile", "missing": "median", "quantiles": 50},
    "distance": {"kind": "numeric", "log": True, "clip": [100, 2000]},
    "humid": {"kind": "numeric", "scale": "minmax", "missing": 50},
    "precip": {"kind": "numeric", "scale": "none", "missing": "median", "indicator": True},
    "flight": {"kind": "bucketize", "buckets": 5},
    "hour": {"kind": "bucketize", "boundaries": [8, 16]},
    "nothing": {"kind": "numeric", "scale": "quantile", "missing": "median"},
    "empty": {"kind": "bucketize", "buckets": 4},
    "blank": "category",
    "time_hour": {
        "kind": "time",
        "parts": ["month", "hour"],
        "cycles": ["day_of_week"],
        "time_zone": "America/New_York",
    },
    "day_of": {"kind": "time", "column": "on"},
}


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real flights, in two part files, with columns that have nothing in them."""
    types = {"time_hour": pa.timestamp("us", "UTC")}
    rows = pyarrow.csv.read_csv(
        FLIGHTS, convert_options=pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=True)
    )
    count = len(rows)
    for name, kind in (("nothing", pa.float64()), ("empty", pa.int64()), ("blank", pa.string())):
        rows = rows.append_column(name, pa.nulls(count, kind))
    days = [None if place % 9 == 0 else 15_000 + place % 400 for place in range(count)]
    rows = rows.append_column("on", pa.array(days, pa.int32()).cast(pa.date32()))
    return write(tmp_path_factory.mktemp("flights") / "table", rows, parts=2)


def write(path: Path, rows: pa.Table, *, parts: int = 1) -> Path:
    from pipeparts.runtime.tables import TableWriter

    with TableWriter(path, rows.schema, source="flights.csv", rows_per_part=-(-len(rows) // parts)) as writer:
        step = -(-len(rows) // parts)
        for start in range(0, len(rows), step):
            writer.write(rows.slice(start, step))
            writer._flush()
    assert len(list(path.glob("part-*.parquet"))) == parts
    return path


class Run:
    """One run of the component's logic."""

    def __init__(self, folder: Path, table: Path, **parameters: Any) -> None:
        self.folder = folder
        self.transform_path = folder / "transform"
        self.graph = folder / "graph"
        self.table_path = folder / "transformed"
        self.examples = folder / "examples"
        self.page = folder / "page.html"
        self.metadata, self.info = logic.transform_tft(
            table_path=table,
            table_uri=str(table),
            transform_path=self.transform_path,
            transform_graph_path=self.graph,
            transformed_table_path=self.table_path,
            transformed_examples_path=self.examples,
            page_path=self.page,
            **parameters,
        )

    @property
    def transform(self) -> Transform:
        return Transform.load(self.transform_path)

    @property
    def rows(self) -> pa.Table:
        return Table(self.table_path).read()


@pytest.fixture(scope="module")
def every_kind(flights: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every kind of feature, fitted by TFT."""
    return Run(tmp_path_factory.mktemp("every"), flights, features=EVERY_KIND, label="late")


@pytest.fixture(scope="module")
def ours(flights: Path, tmp_path_factory: pytest.TempPathFactory) -> Transform:
    """The same by fit_features."""
    folder = tmp_path_factory.mktemp("ours")
    fit_features(
        table_path=flights,
        transform_path=folder / "transform",
        page_path=folder / "page.html",
        features=EVERY_KIND,
        label="late",
    )
    return Transform.load(folder / "transform")


def test_it_fits_what_fit_features_fits(every_kind: Run, ours: Transform) -> None:
    theirs = every_kind.transform
    assert theirs.columns == ours.columns
    assert theirs.numeric_names == ours.numeric_names
    assert theirs.category_names == ours.category_names
    for mine, found in zip(ours.features, theirs.features, strict=True):
        if mine.kind in ("category", "time"):
            assert found == mine
    by_name = {feature.name: feature for feature in theirs.features}
    for mine in ours.features:
        if mine.kind == "numeric" and not mine.points:
            found = by_name[mine.name]
            assert (found.indicator, found.log, found.limit) == (mine.indicator, mine.log, mine.limit)
            for part in ("fill", "center", "factor"):
                assert getattr(found, part) == pytest.approx(getattr(mine, part), rel=1e-9, abs=1e-12), mine.name


def test_its_quantiles_are_those_of_fit_features_but_for_the_rank_error(
    every_kind: Run, ours: Transform, flights: Path
) -> None:
    mine = {feature.name: feature for feature in ours.features}
    found = {feature.name: feature for feature in every_kind.transform.features}
    temp = Table(flights).read(["temp"])["temp"].drop_null().to_numpy()
    ranks = np.interp(found["temp"].points, mine["temp"].points, mine["temp"].ranks)
    # Of values that come often: the middle of the ranks they have, which are a step of the 50 points apart.
    assert np.abs(ranks - found["temp"].ranks).max() < 1e-4 + 2 / len(temp) + 0.5 / 49
    assert every_kind.transform.statistics["temp"]["rank_error"] == pytest.approx(1e-4 + 1 / len(temp))
    flight = np.sort(Table(flights).read(["flight"])["flight"].to_numpy())
    assert len(found["flight"].boundaries) == 4
    places = np.searchsorted(flight, found["flight"].boundaries) / len(flight)
    assert np.abs(places - np.array([0.2, 0.4, 0.6, 0.8])).max() < 1e-4 + 2 / len(flight)


def test_its_statistics_are_those_of_fit_features(every_kind: Run, ours: Transform) -> None:
    for name, mine in ours.statistics.items():
        found = every_kind.transform.statistics[name]
        assert set(found) == set(mine)
        for key in ("rows", "missing", "infinite", "vocabulary", "coverage", "top"):
            assert found.get(key) == mine.get(key), (name, key)
        for key in ("mean", "deviation", "least", "greatest"):
            expected = mine.get(key)
            assert found.get(key) == (pytest.approx(expected) if isinstance(expected, float) else expected), (name, key)


def test_the_transformed_table_is_what_the_transform_gives(every_kind: Run, flights: Path) -> None:
    transform, rows = every_kind.transform, every_kind.rows
    expected = transform.apply(Table(flights).read())
    for place, name in enumerate(transform.numeric_names):
        # Raw fractions are float32 in tf.Example, and so in the graph.
        np.testing.assert_allclose(
            rows[name].to_numpy(), expected.numeric[:, place], rtol=2e-6, atol=2e-6, err_msg=name
        )
    for place, name in enumerate(transform.category_names):
        assert rows[name].to_pylist() == expected.categories[:, place].tolist(), name
    assert rows["late"].to_pylist() == Table(flights).read(["late"])["late"].to_pylist()
    assert every_kind.info.rows == 2005
    assert len(rows.column_names) == len(transform.numeric_names) + len(transform.category_names) + 1


def test_the_graph_is_one_that_tfx_takes(every_kind: Run) -> None:
    import tensorflow as tf
    import tensorflow_transform as tft

    output = tft.TFTransformOutput(str(every_kind.graph))
    raw = output.raw_feature_spec()
    assert raw["distance"] == tf.io.VarLenFeature(tf.int64)
    assert raw["time_hour"] == tf.io.VarLenFeature(tf.string)
    domain = output.transformed_domains()["dest"]
    assert (domain.min, domain.max, domain.is_categorical) == (0, 7 + 3, True)
    names = sorted(path.name for path in every_kind.graph.iterdir())
    assert names == ["metadata", "pipeparts.json", "transform_fn", "transformed_metadata"]
    layer = output.transform_features_layer()
    example = tf.train.Example()
    example.features.feature["dest"].bytes_list.value.append(b"IAH")
    spec = {name: feature for name, feature in raw.items() if name != "late"}
    features = layer(tf.io.parse_example([example.SerializeToString()], spec))
    assert "late" not in features  # serving has no label
    assert (
        features["dest"].numpy().tolist()
        == every_kind.transform.apply(
            {name: ["IAH" if name == "dest" else None] for name in every_kind.transform.columns}
        )
        .categories[0, every_kind.transform.category_names.index("dest")]
        .reshape(1)
        .tolist()
    )


def test_the_examples_are_those_of_tfx(every_kind: Run) -> None:
    import tensorflow as tf
    import tensorflow_transform as tft

    files = sorted((every_kind.examples / "Split-train").iterdir())
    assert [file.name for file in files] == [f"transformed_examples-0000{n}-of-00002.gz" for n in range(2)]
    spec = tft.TFTransformOutput(str(every_kind.graph)).transformed_feature_spec()
    records = list(tf.data.TFRecordDataset([str(file) for file in files], compression_type="GZIP").as_numpy_iterator())
    assert len(records) == 2005
    parsed = tf.io.parse_example(records, spec)
    rows = every_kind.rows
    assert parsed["carrier"].numpy().tolist() == rows["carrier"].to_pylist()
    np.testing.assert_array_equal(parsed["wind_gust"].numpy(), rows["wind_gust"].to_numpy())
    late = tf.sparse.to_dense(parsed["late"], default_value=-1).numpy()[:, 0].tolist()
    assert late == [-1 if value is None else value for value in rows["late"].to_pylist()]
    assert -1 in late, "a flight that was cancelled has no label"


def test_the_page_stands_alone(every_kind: Run) -> None:
    text = every_kind.page.read_text()
    assert text.startswith("<!doctype html>")
    assert 'src="http' not in text
    for words in ("Features by TensorFlow Transform", "the raw table", "What comes out", "0 to 10, ids", "dest"):
        assert words in text


def test_a_second_table_goes_through_the_graph_that_was_fitted(every_kind: Run, flights: Path, tmp_path: Path) -> None:
    rows = Table(flights).read().slice(0, 50)
    new = rows.drop_columns(["late"]).set_column(
        rows.schema.get_field_index("dest"), "dest", pa.array(["never seen", None] * 25)
    )
    again = Run(tmp_path, write(tmp_path / "new", new), fitted_graph_path=every_kind.graph, split="eval")
    assert again.transform.fingerprint == every_kind.transform.fingerprint
    assert again.metadata["takes"] == "raw table"
    expected = again.transform.apply(new).categories[:, again.transform.category_names.index("dest")]
    assert again.rows["dest"].to_pylist() == expected.tolist()
    assert "late" not in again.rows.column_names
    assert (again.examples / "Split-eval" / "transformed_examples-00000-of-00001.gz").is_file()
    assert {path.name for path in again.graph.iterdir()} == {path.name for path in every_kind.graph.iterdir()}


PREPROCESSING = """
import tensorflow as tf
import tensorflow_transform as tft


def preprocessing_fn(inputs):
    temp = inputs["temp"]
    if isinstance(temp, tf.SparseTensor):
        temp = tf.sparse.to_dense(tf.SparseTensor(temp.indices, temp.values, [temp.dense_shape[0], 1]))
    return {
        "distance_z": tft.scale_to_z_score(tf.cast(inputs["distance"], tf.float32)),
        "temp_01": tft.scale_to_0_1(temp),
        "carrier_id": tft.compute_and_apply_vocabulary(inputs["carrier"], num_oov_buckets=1),
        "origin_hot": tf.one_hot(tf.reshape(tft.compute_and_apply_vocabulary(inputs["origin"]), [-1]), 3),
        "dest_text": inputs["dest"],
        "late": inputs["late"],
    }


def fails(inputs):
    return {"x": inputs["no_such_column"]}


def of_several(inputs):
    words = tf.strings.bytes_split(tf.reshape(inputs["carrier"], [-1])).to_sparse()
    return {"words": words, "distance": inputs["distance"], "late": inputs["late"]}
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A team's own preprocessing_fn in a file."""
    path = tmp_path_factory.mktemp("team") / "team_preprocessing.py"
    path.write_text(PREPROCESSING)
    return str(path)


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few columns of the flights."""
    rows = pyarrow.csv.read_csv(FLIGHTS, convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=True))
    columns = ["carrier", "origin", "dest", "distance", "temp", "late", "arr_delay"]
    return write(tmp_path_factory.mktemp("some") / "table", rows.select(columns))


@pytest.fixture(scope="module")
def team(some: Path, module: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with the team's function."""
    return Run(tmp_path_factory.mktemp("run"), some, preprocessing_fn=f"{module}:preprocessing_fn", label="late")


def test_a_teams_function_gives_a_table_that_trainers_take(team: Run, some: Path) -> None:
    raw, rows = Table(some).read(), team.rows
    distance = raw["distance"].to_numpy().astype(np.float64)
    np.testing.assert_allclose(
        rows["distance_z"].to_numpy(), (distance - distance.mean()) / distance.std(), rtol=1e-4, atol=1e-5
    )
    assert rows["dest_text"].to_pylist() == raw["dest"].to_pylist()
    transform = team.transform
    assert team.metadata["takes"] == "transformed table"
    assert transform.numeric_names == ["distance_z", "origin_hot_0", "origin_hot_1", "origin_hot_2", "temp_01"]
    assert transform.category_names == ["carrier_id"]
    features = transform.apply(rows)
    np.testing.assert_array_equal(features.numeric[:, 0], rows["distance_z"].to_numpy())
    ids = dict(zip(raw["carrier"].to_pylist(), features.categories[:, 0].tolist(), strict=True))
    assert sorted(ids.values()) == list(range(1, len(ids) + 1)), "each value has an id of its own, none is missing"
    assert features.numeric[:, 1:4].sum(axis=1).tolist() == [1.0] * len(rows)
    page = team.page.read_text()
    assert "the transformed table" in page
    assert "transform_features_layer" in page


def test_the_teams_graph_transforms_another_table(team: Run, some: Path, tmp_path: Path) -> None:
    rows = Table(some).read().slice(100, 30)
    again = Run(tmp_path, write(tmp_path / "new", rows), fitted_graph_path=team.graph)
    assert again.rows.equals(team.rows.slice(100, 30))
    assert again.transform.fingerprint == team.transform.fingerprint


def test_a_graph_without_our_note_is_one_of_tfx(team: Run, some: Path, tmp_path: Path) -> None:
    graph = tmp_path / "graph-of-tfx"
    shutil.copytree(team.graph, graph)
    (graph / "pipeparts.json").unlink()
    again = Run(tmp_path, some, fitted_graph_path=graph, label="late")
    assert again.metadata["origin"] == "TFX"
    assert again.transform.fingerprint == team.transform.fingerprint
    assert again.rows.equals(team.rows)


def test_a_value_is_missing_that_was_never_missing(team: Run, some: Path, tmp_path: Path) -> None:
    rows = Table(some).read().slice(0, 3)
    rows = rows.set_column(3, "distance", pa.array([100, None, 300]))
    with pytest.raises(DataError) as caught:
        Run(tmp_path, write(tmp_path / "new", rows), fitted_graph_path=team.graph)
    assert "column 'distance'" in str(caught.value)
    assert "1 missing of 3" in str(caught.value)
    assert not (tmp_path / "transformed").exists()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, ["nothing to transform by", "features, preprocessing_fn, fitted_graph"]),
        ({"features": {"carrier": "category"}, "preprocessing_fn": "a:b"}, ["more than one thing"]),
        ({"features": {"carier": "category"}}, ["features.carier", "did you mean 'carrier'"]),
        ({"features": {"carrier": "numeric"}}, ["features.carrier.kind"]),
        ({"features": {"late": "numeric"}, "label": "late"}, ["the label is among the features"]),
        ({"features": {"carrier": "category"}, "label": "lat"}, ["label", "did you mean 'late'"]),
        ({"features": {"carrier": "category"}, "split": "../train"}, ["split", "'../train'"]),
        ({"features": {"carrier": "category"}, "schema_path": "x"}, ["a schema where none is read"]),
        ({"features": {"carrier": "category"}, "beam_options": {"runer": "x"}}, ["beam_options.runer"]),
        (
            {"features": {"carrier": "category"}, "beam_options": {"runner": "FlinkRunner"}},
            ["FlinkRunner cannot read", "no temp_location"],
        ),
        ({"preprocessing_fn": "no_colon"}, ["no preprocessing_fn there", "no_colon"]),
        ({"preprocessing_fn": "no.such.module:fn"}, ["does not import", "ModuleNotFoundError"]),
        ({"preprocessing_fn": "json:lods"}, ["no preprocessing_fn there", "did you mean 'loads'"]),
        ({"preprocessing_fn": "/no/such/file.py:fn"}, ["does not import", "FileNotFoundError"]),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    some: Path, tmp_path: Path, parameters: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        Run(tmp_path, some, **parameters)
    for word in words:
        assert word in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_function_that_fails_is_said_with_its_own_error(some: Path, module: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        Run(tmp_path, some, preprocessing_fn=f"{module}:fails")
    assert "the preprocessing_fn fails" in str(caught.value)
    assert "no_such_column" in str(caught.value)
    assert not (tmp_path / "graph").exists()


def test_a_feature_of_several_values_is_refused(some: Path, module: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="several values in a row") as caught:
        Run(tmp_path, some, preprocessing_fn=f"{module}:of_several", label="late")
    assert "words" in str(caught.value)


def test_damaged_inputs(team: Run, some: Path, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no transform graph here"):
        Run(tmp_path, some, fitted_graph_path=tmp_path / "nothing")
    graph = tmp_path / "graph-of-others"
    shutil.copytree(team.graph, graph)
    (graph / "pipeparts.json").write_text(json.dumps({"format": "something/1"}))
    with pytest.raises(ContractError, match="not a transform graph's note"):
        Run(tmp_path, some, fitted_graph_path=graph)
    with pytest.raises(InputError, match="made with another label"):
        Run(tmp_path, some, fitted_graph_path=team.graph, label="arr_delay")
    few = write(tmp_path / "few", Table(some).read(["carrier", "late"]))
    with pytest.raises(ContractError) as caught:
        Run(tmp_path, few, fitted_graph_path=team.graph)
    assert "distance is missing" in str(caught.value)
    empty = write_table(tmp_path / "empty", Table(some).schema.empty_table(), source="nothing")
    assert empty.rows == 0
    with pytest.raises(DataError, match="no rows to transform"):
        Run(tmp_path, tmp_path / "empty", features={"carrier": "category"})


def test_numbers_too_large_for_a_category_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "table", pa.table({"n": pa.array([1, 2**60, None])}))
    with pytest.raises(DataError, match="too large to be told apart"):
        Run(tmp_path, path, features={"n": {"kind": "category", "min_count": 1}})


def test_texts_of_every_sort_and_numbers_of_every_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = ["a b", "a\nb", "", None, " ", "é", "ß", "a b", "\x1f", "0"]
    numbers = [1e300, -1e-300, float("inf"), float("nan"), None, 0.0, -0.0, 2.5, 1.0, 1.0]
    path = write(
        tmp_path / "table", pa.table({"s": texts, "x": pa.array(numbers, pa.float64()), "y": [0.1, *numbers[1:]]})
    )
    features = {
        "s": {"kind": "category", "min_count": 1},
        "x": {"kind": "numeric", "scale": "minmax"},
        "y": {"kind": "category", "min_count": 1},
    }
    with caplog.at_level(logging.WARNING):
        found = Run(tmp_path, path, features=features)
    fit_features(table_path=path, transform_path=tmp_path / "ours", page_path=tmp_path / "ours.html", features=features)
    ours = Transform.load(tmp_path / "ours")
    assert found.transform.features[0] == ours.features[0]
    assert found.transform.features[2] == ours.features[2]
    assert found.transform.features[1].center == ours.features[1].center
    assert "1 infinite values count as missing" in caplog.text


@pytest.mark.slow
def test_a_hundred_thousand_rows_are_fitted_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    count = 100_000
    x = np.exp(rng.normal(0, 2, count))
    x[rng.random(count) < 0.1] = np.nan
    rows = pa.table({"x": x, "k": pa.array(rng.zipf(1.5, count) % 1_000), "late": rng.integers(0, 2, count)})
    path = write(tmp_path / "table", rows, parts=3)
    features = {
        "x": {"kind": "numeric", "scale": "quantile"},
        "z": {"kind": "numeric", "column": "x"},
        "k": {"kind": "category", "max_values": 50},
    }
    found = Run(tmp_path, path, features=features, label="late")
    fit_features(table_path=path, transform_path=tmp_path / "ours", page_path=tmp_path / "ours.html", features=features)
    mine, theirs = Transform.load(tmp_path / "ours").apply(rows), found.transform.apply(rows)
    assert (mine.categories == theirs.categories).all()
    names = found.transform.numeric_names
    ranks = names.index("x")
    # The ranks of quantiles: fit_features is off by as much itself above 65,536 rows.
    assert np.abs(mine.numeric[:, ranks] - theirs.numeric[:, ranks]).max() < 2e-3
    z = names.index("z")
    np.testing.assert_allclose(mine.numeric[:, z], theirs.numeric[:, z], rtol=1e-6)
