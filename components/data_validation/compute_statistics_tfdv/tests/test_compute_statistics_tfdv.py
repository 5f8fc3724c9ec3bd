from __future__ import annotations

import datetime as dt
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeparts.components.data_validation.compute_statistics_tfdv import logic
from pipeparts.runtime.errors import ContractError, DataError, InputError
from pipeparts.runtime.files import write_text
from pipeparts.runtime.tables import TableWriter, write_table
from pipeparts.runtime.tfdv import read_statistics

pytestmark = pytest.mark.tfx

ROWS = 3000
KEYED = pa.schema({"key": pa.string(), "number": pa.float64()})


def small() -> pa.Table:
    return pa.table(
        {
            "carrier": [("AA", "UA", "DL")[i % 3] for i in range(ROWS)],
            "origin": [("JFK", "EWR")[i % 2] for i in range(ROWS)],
            "delay": pa.array([None if i % 10 == 0 else i % 7 - 3.5 for i in range(ROWS)]),
            "distance": [i % 1000 for i in range(ROWS)],
            "late": [i % 4 == 0 for i in range(ROWS)],
            "weight": [1.0 if i % 2 else 3.0 for i in range(ROWS)],
        }
    )


def compute(folder: Path, table: pa.Table | Path, name: str = "out", **given: Any) -> tuple[Any, dict[str, Any], Path]:
    path = folder / "table"
    if isinstance(table, Path):
        path = table
    else:
        write_table(path, table, source="a test")
    out = folder / name
    arguments: dict[str, Any] = {
        "columns": None, "slices": None, "weight_column": "", "split": "train", "histogram_buckets": 10,
        "top_values": 20, "beam_options": None, "schema_path": None,
    }  # fmt: skip
    found = logic.compute_statistics(
        table_path=path,
        table_uri=str(path),
        statistics_path=out / "statistics",
        page_path=out / "page.html",
        **{**arguments, **given},
    )
    return read_statistics(out / "statistics"), found, out


def features(dataset: Any) -> dict[str, Any]:
    return {feature.path.step[0]: feature for feature in dataset.features}


def test_the_numbers_are_those_of_the_table(tmp_path: Path) -> None:
    statistics, found, _ = compute(tmp_path, small())
    (dataset,) = statistics.datasets
    by_name = features(dataset)
    assert (found["rows"], dataset.num_examples, list(by_name)) == (ROWS, ROWS, sorted(small().column_names))
    delay = by_name["delay"].num_stats
    assert (delay.min, delay.max, delay.common_stats.num_missing) == (-3.5, 2.5, ROWS / 10)
    carrier = by_name["carrier"].string_stats
    assert {(value.value, value.frequency) for value in carrier.top_values} == {(c, 1000) for c in ("AA", "UA", "DL")}
    assert by_name["distance"].num_stats.mean == pytest.approx(499.5)
    # True and false are categories: 1 and 0 with their counts.
    late = by_name["late"]
    counts = {value.value: value.frequency for value in late.string_stats.top_values}
    assert (late.Type.Name(late.type), counts) == ("INT", {"0": ROWS * 3 / 4, "1": ROWS / 4})


def test_tfdvs_own_functions_give_the_same_and_read_the_file(tmp_path: Path) -> None:
    import tensorflow_data_validation as tfdv

    table = small().drop_columns(["late"])
    statistics, found, out = compute(tmp_path, table)
    theirs = tfdv.generate_statistics_from_dataframe(table.to_pandas())
    assert features(statistics.datasets[0])["delay"].num_stats.std_dev == pytest.approx(
        features(theirs.datasets[0])["delay"].num_stats.std_dev
    )
    loaded = tfdv.load_stats_binary(str(out / "statistics" / found["file"]))
    assert loaded == statistics


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    _, _, one = compute(tmp_path, small(), "one", slices=["carrier"])
    _, _, two = compute(tmp_path, small(), "two", slices=["carrier"])
    for name in ("statistics/Split-train/FeatureStats.pb", "page.html"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_slices_are_those_rows(tmp_path: Path) -> None:
    statistics, found, out = compute(tmp_path, small(), slices=["carrier", ["origin", "late"]])
    counts = {dataset.name: dataset.num_examples for dataset in statistics.datasets}
    assert next(iter(counts)) == "All Examples"
    assert counts["carrier_AA"] == 1000
    assert counts["late_0_origin_EWR"] == 1500
    assert found["slices"] == len(counts) - 1 == 3 + 3
    assert "carrier_AA" in (out / "page.html").read_text()


def test_batches_of_one_table_count_once_each(tmp_path: Path) -> None:
    many = pa.concat_tables([small()] * 30)  # more than one batch
    statistics, _, _ = compute(tmp_path, many, slices=["carrier"])
    assert [dataset.num_examples for dataset in statistics.datasets] == [ROWS * 30] + [1000 * 30] * 3


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    import resource

    def peak_mb() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def rows(batches: int) -> Path:
        keys = np.arange(131_072)
        with TableWriter(tmp_path / f"{batches}", KEYED, source="a test", fingerprint=False) as writer:
            for place in range(batches):
                numbers = keys + place * len(keys)
                writer.write(pa.table({"key": [f"K{n}" for n in numbers], "number": numbers * 0.5}, KEYED))
        return tmp_path / f"{batches}"

    compute(tmp_path, rows(2), "few")
    few = peak_mb()
    statistics, found, _ = compute(tmp_path, rows(16), "many")
    assert found["rows"] == 16 * 131_072
    # Two million keys that are all different would be some 200 MB as they are.
    assert peak_mb() - few < 100
    unique = features(statistics.datasets[0])["key"].string_stats.unique
    assert unique == pytest.approx(16 * 131_072, rel=0.05)


def test_counts_of_thousands_of_values_are_exact(tmp_path: Path) -> None:
    names = ["often"] * 500 + [f"twice-{number}" for number in range(2000)] * 2 + [f"once-{n}" for n in range(9000)]
    statistics, _, _ = compute(tmp_path, pa.table({"name": names}), top_values=3)
    found = features(statistics.datasets[0])["name"].string_stats
    assert [value.frequency for value in found.top_values] == [500, 2, 2]
    assert {bucket.sample_count for bucket in found.rank_histogram.buckets} == {500, 2}
    assert (len(found.rank_histogram.buckets), found.unique) == (1000, 11_001)


def test_values_that_are_kept_by_chance_are_left_out(tmp_path: Path) -> None:
    names = ["often"] * 5000 + [f"once-{number}" for number in range(100_000)]
    statistics, _, _ = compute(tmp_path, pa.table({"name": names}))
    found = features(statistics.datasets[0])["name"].string_stats
    assert [value.value for value in found.top_values] == ["often"]
    assert found.top_values[0].frequency == pytest.approx(5000, abs=105_000 / 32_768)
    assert [bucket.label for bucket in found.rank_histogram.buckets] == ["often"]
    assert found.unique == pytest.approx(100_001, rel=0.05)


def test_beam_gives_what_the_step_gives(tmp_path: Path) -> None:
    from tensorflow_metadata.proto.v0 import statistics_pb2

    direct, _, _ = compute(tmp_path, small(), "direct", slices=["carrier"], weight_column="weight")
    by_beam, _, _ = compute(
        tmp_path, small(), "beam", slices=["carrier"], weight_column="weight", beam_options={"runner": "DirectRunner"}
    )
    assert [d.name for d in direct.datasets] == [d.name for d in by_beam.datasets]
    for ours, theirs in zip(direct.datasets, by_beam.datasets, strict=True):
        assert ours.num_examples == theirs.num_examples
        for name, feature in features(ours).items():
            other = features(theirs)[name]
            assert isinstance(other, statistics_pb2.FeatureNameStatistics)
            assert feature.num_stats.mean == pytest.approx(other.num_stats.mean)
            assert feature.string_stats.top_values == other.string_stats.top_values
            assert feature.num_stats.weighted_numeric_stats.mean == pytest.approx(
                other.num_stats.weighted_numeric_stats.mean
            )


def test_weights_count(tmp_path: Path) -> None:
    statistics, _, out = compute(tmp_path, small(), columns=["origin", "distance"], weight_column="weight")
    dataset = statistics.datasets[0]
    assert dataset.weighted_num_examples == 2 * ROWS
    assert features(dataset)["distance"].num_stats.weighted_numeric_stats.mean == pytest.approx(499.25)
    assert "Weighted number of rows: 6,000" in (out / "page.html").read_text()


def test_every_type_of_a_table_counts(tmp_path: Path) -> None:
    moments = [dt.datetime(1969, 12, 31, 23, 59, 59, 500_000), dt.datetime(2013, 1, 2)]
    table = pa.table(
        {
            "date": pa.array([dt.date(1970, 1, 2), None]),
            "moment": pa.array(moments, pa.timestamp("us")),
            "zoned": pa.array(moments, pa.timestamp("us", tz="Europe/Berlin")),
            "price": pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.50")], pa.decimal128(9, 2)),
            "tags": pa.array([["a", None, "b"], None], pa.list_(pa.string())),
            "scores": pa.array([[], [1.0, 2.0]], pa.list_(pa.float32())),
            "code": pa.array(["x", "y"]).dictionary_encode(),
            "bytes": pa.array([b"\xff\x00", b"ok"]),
            "small": pa.array([1, 2], pa.uint8()),
            "large": pa.array([2**63, 1], pa.uint64()),
            "empty": pa.array([None, None], pa.string()),
        }
    )
    statistics, found, _ = compute(tmp_path, table)
    by_name = features(statistics.datasets[0])
    assert found["features"] == len(table.column_names)
    assert (by_name["date"].num_stats.min, by_name["date"].num_stats.common_stats.num_missing) == (86_400, 1)
    assert by_name["moment"].num_stats.max == dt.datetime(2013, 1, 2, tzinfo=dt.UTC).timestamp()
    assert by_name["price"].num_stats.mean == 2.0
    tags = by_name["tags"].string_stats.common_stats
    assert (tags.tot_num_values, tags.num_missing) == (2, 1)
    scores = by_name["scores"].num_stats.common_stats
    assert (scores.tot_num_values, scores.num_missing, scores.min_num_values) == (2, 0, 0)


def test_a_page_needs_no_network_and_escapes_what_the_data_says(tmp_path: Path) -> None:
    _, _, out = compute(tmp_path, pa.table({"<b>name": ["<script>alert(1)</script>", "x"], "n": [1, 2]}))
    page = (out / "page.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"columns": ["carier"]}, ["parameter: columns", "did you mean 'carrier'"]),
        ({"slices": ["origins"]}, ["slices[0]", "did you mean 'origin'"]),
        ({"slices": ["origin", []]}, ["slices[1]", "received: []"]),
        ({"slices": [{"origin": "JFK"}]}, ["slices[0]"]),
        ({"slices": ["delay"]}, ["slices[0]", "double"]),
        ({"weight_column": "wait"}, ["weight_column", "did you mean 'weight'"]),
        ({"weight_column": "carrier"}, ["weight_column", "string"]),
        ({"weight_column": "delay"}, ["weight_column", "row 1", "None"]),
        ({"split": "../up"}, ["parameter: split", "'../up'"]),
        ({"split": ""}, ["parameter: split"]),
        ({"histogram_buckets": 1}, ["histogram_buckets", "2 to 1000"]),
        ({"top_values": 0}, ["top_values"]),
        ({"beam_options": {"runner": "Spak"}}, ["beam_options.runner"]),
        (
            {"beam_options": {"runner": "DataflowRunner", "project": "p-1234", "region": "r", "temp_location": "gs://b/t"}},
            ["a table that Dataflow cannot read", "gs://"],
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_and_nothing_is_written(tmp_path: Path, given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises((InputError, DataError)) as caught:
        compute(tmp_path, small(), **given)
    for word in words:
        assert word in str(caught.value)
    assert not list((tmp_path / "out").rglob("*.pb"))


def test_more_slices_than_anybody_looks_at_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more slices"):
        compute(tmp_path, small(), slices=["distance"])


def test_negative_weights_are_refused_with_their_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 2(.|\n)*received: -1"):
        compute(tmp_path, pa.table({"w": [1.0, -1.0], "x": [1, 2]}), weight_column="w")


def test_a_nested_column_is_refused_unless_it_is_left_out(tmp_path: Path) -> None:
    table = pa.table({"deep": [{"a": 1}, {"a": 2}], "x": [1, 2]})
    with pytest.raises(InputError, match=r"deep(.|\n)*give `columns`"):
        compute(tmp_path, table)
    statistics, _, _ = compute(tmp_path, table, columns=["x"])
    assert list(features(statistics.datasets[0])) == ["x"]


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="without rows"):
        compute(tmp_path, small().slice(0, 0))


def test_a_table_that_is_damaged_or_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no table here"):
        compute(tmp_path, tmp_path / "nowhere")
    write_table(tmp_path / "table", small(), source="a test")
    part = tmp_path / "table" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(ContractError, match="damaged"):
        compute(tmp_path, tmp_path / "table")


def test_a_schema_says_which_numbers_are_categories(tmp_path: Path) -> None:
    schema = tmp_path / "schema.pbtxt"
    write_text(schema, 'feature { name: "distance" type: INT int_domain { is_categorical: true } }')
    statistics, _, _ = compute(tmp_path, small(), schema_path=schema)
    assert features(statistics.datasets[0])["distance"].string_stats.unique == 1000


def test_a_schema_that_is_none_is_refused(tmp_path: Path) -> None:
    write_text(tmp_path / "schema.pbtxt", 'feature { nam: "distance" }')
    with pytest.raises(ContractError, match="line 1"):
        compute(tmp_path, small(), schema_path=tmp_path / "schema.pbtxt")
