from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeparts.components.data_validation.infer_schema_tfdv import logic
from pipeparts.runtime.errors import ContractError, InputError
from pipeparts.runtime.files import write_text
from pipeparts.runtime.tfdv import names, read_schema, write_statistics

pytestmark = pytest.mark.tfx


@pytest.fixture(scope="module")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import pandas as pd
    import tensorflow_data_validation as tfdv

    frame = pd.DataFrame(
        {
            "carrier": [("AA", "UA", "DL")[i % 3] for i in range(300)],
            "tail": [f"N{i}" for i in range(300)],
            "delay": [None if i % 10 == 0 else i / 2 for i in range(300)],
            "distance": range(300),
        }
    )
    folder = tmp_path_factory.mktemp("statistics") / "statistics"
    write_statistics(folder, tfdv.generate_statistics_from_dataframe(frame), split="train")
    return folder


def infer(statistics: Path, folder: Path, **given: Any) -> tuple[dict[str, Any], Any]:
    arguments: dict[str, Any] = {
        "infer_feature_shape": True, "max_string_domain_size": 100, "required_columns": None, "environments": None,
        "rules": None, "given_schema": "",
    }  # fmt: skip
    logic.infer_schema(
        statistics_path=statistics,
        schema_path=folder / "schema",
        page_path=folder / "page.html",
        **{**arguments, **given},
    )
    schema = read_schema(folder / "schema")
    return names(schema.feature), schema


def test_a_schema_is_inferred_that_tfdv_reads(statistics: Path, tmp_path: Path) -> None:
    import tensorflow_data_validation as tfdv

    features, schema = infer(statistics, tmp_path)
    assert sorted(features) == ["carrier", "delay", "distance", "tail"]
    assert list(tfdv.get_domain(schema, "carrier").value) == ["AA", "DL", "UA"]
    assert features["carrier"].presence.min_fraction == 1
    assert not features["delay"].HasField("shape")
    assert features["tail"].WhichOneof("domain_info") is None
    assert tfdv.load_schema_text(str(tmp_path / "schema" / "schema.pbtxt")) == schema


def test_two_runs_write_the_same_bytes(statistics: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        infer(statistics, tmp_path / name, rules={"distance": {"min": 0}}, environments=["TRAINING", "SERVING"])
    for name in ("schema/schema.pbtxt", "page.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_options_of_tfdv_hold(statistics: Path, tmp_path: Path) -> None:
    features, schema = infer(statistics, tmp_path, infer_feature_shape=False, max_string_domain_size=2)
    assert not schema.string_domain
    assert not features["distance"].HasField("shape")
    features, _ = infer(statistics, tmp_path, max_string_domain_size=300)
    assert features["tail"].domain == "tail"


def test_rules_are_laid_over_what_is_inferred(statistics: Path, tmp_path: Path) -> None:
    features, schema = infer(
        statistics,
        tmp_path,
        required_columns=["delay"],
        environments=["TRAINING", "SERVING"],
        rules={
            "carrier": {"allowed": ["AA", "UA", "DL", "B6"], "min_allowed_share": 0.9, "drift_l_infinity": 0.1},
            "delay": {"max": 500.5, "not_in": ["SERVING"], "skew_jensen_shannon": 0.2},
            "distance": {"min": 0.0, "max": 6000.0, "min_present_share": 0.5},
        },
    )
    carrier, delay, distance = features["carrier"], features["delay"], features["distance"]
    assert list(carrier.string_domain.value) == ["AA", "UA", "DL", "B6"]
    assert carrier.distribution_constraints.min_domain_mass == 0.9
    assert carrier.drift_comparator.infinity_norm.threshold == 0.1
    assert not schema.string_domain, "the inferred domain is nobody's any more"
    assert (delay.presence.min_fraction, delay.presence.min_count) == (1.0, 1)
    assert (delay.float_domain.max, delay.float_domain.HasField("min")) == (500.5, False)
    assert list(delay.not_in_environment) == ["SERVING"]
    assert delay.skew_comparator.jensen_shannon_divergence.threshold == 0.2
    assert (distance.int_domain.min, distance.int_domain.max, distance.presence.min_fraction) == (0, 6000, 0.5)
    assert not distance.HasField("shape"), "a shape would forbid missing values all the same"
    page = (tmp_path / "page.html").read_text()
    for word in ("drift: L∞ 0.1", "AA, UA, DL, B6", "0 to 6,000", "in 50.00% of rows", "500.5 at most", "SERVING"):
        assert word in page


def test_a_given_schema_is_taken_in_place_of_the_inferred(statistics: Path, tmp_path: Path) -> None:
    given = tmp_path / "given.pbtxt"
    write_text(given, 'feature { name: "carrier" type: BYTES } feature { name: "gone" type: INT }')
    features, _ = infer(statistics, tmp_path, given_schema=str(given), rules={"gone": {"min": 1}})
    assert list(features) == ["carrier", "gone"]
    assert features["gone"].int_domain.min == 1
    assert "given.pbtxt" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rules": {"carier": {}}}, ["parameter: rules", "did you mean 'carrier'"]),
        ({"rules": {"carrier": {"alowed": ["AA"]}}}, ["rules.carrier.alowed", "did you mean 'allowed'"]),
        ({"rules": {"carrier": {"allowed": []}}}, ["rules.carrier.allowed"]),
        ({"rules": {"carrier": {"min": 1}}}, ["rules.carrier", "a column of numbers", "BYTES"]),
        ({"rules": {"distance": {"min": 0.5}}}, ["rules.distance", "whole numbers", "0.5"]),
        ({"rules": {"distance": {"min": 5, "max": 1}}}, ["min is above max"]),
        ({"rules": {"distance": {"allowed": ["1"]}}}, ["rules.distance", "a column of texts", "INT"]),
        ({"rules": {"tail": {"min_allowed_share": 0.5}}}, ["rules.tail", "allowed values"]),
        ({"rules": {"delay": {"drift_l_infinity": 0.1}}}, ["rules.delay", "Jensen-Shannon", "FLOAT"]),
        ({"rules": {"delay": {"drift_jensen_shannon": 1.5}}}, ["rules.delay.drift_jensen_shannon", "1.5"]),
        ({"rules": {"delay": {"not_in": ["SERVING"]}}}, ["rules.delay.not_in", "'environments'"]),
        ({"rules": {"delay": {"not_in": ["SERVNG"]}}, "environments": ["SERVING"]}, ["did you mean 'SERVING'"]),
        ({"rules": {"delay": {"required": True, "min_present_share": 0.5}}}, ["not both"]),
        ({"rules": ["delay"]}, ["no dictionary"]),
        ({"rules": {"delay": 3}}, ["rules.delay", "not a dictionary"]),
        ({"required_columns": ["delays"]}, ["required_columns", "did you mean 'delay'"]),
        ({"required_columns": ["delay"], "rules": {"delay": {"required": False}}}, ["required_columns", "rules.delay"]),
        ({"environments": [""]}, ["parameter: environments"]),
        ({"max_string_domain_size": -1}, ["max_string_domain_size", "-1"]),
        ({"given_schema": "nowhere.pbtxt"}, ["given_schema", "nowhere.pbtxt"]),
        ({"given_schema": "ftp://host/schema.pbtxt"}, ["given_schema", "scheme"]),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    statistics: Path, tmp_path: Path, given: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        infer(statistics, tmp_path, **given)
    for word in words:
        assert word.replace("'environments'", "named by `environments`") in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "without features"),
        (b"feature {", "line 1"),
        (b"\xff\xfe\x00", "no text"),
        (b"# nothing\nfeature { name: 3 }", "line 2"),
    ],
)
def test_a_given_schema_that_is_none_is_refused(statistics: Path, tmp_path: Path, content: bytes, words: str) -> None:
    given = tmp_path / "given.pbtxt"
    given.write_bytes(content)
    with pytest.raises(ContractError, match=words):
        infer(statistics, tmp_path, given_schema=str(given))


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00\x01\x02" * 50, b"datasets { name: 'no features' }"])
def test_statistics_that_are_none_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "statistics").write_bytes(content)
    with pytest.raises(ContractError, match="no statistics of TFDV"):
        infer(tmp_path / "statistics", tmp_path / "out")


def test_statistics_of_every_form_are_read(statistics: Path, tmp_path: Path) -> None:
    import tensorflow as tf
    import tensorflow_data_validation as tfdv

    from pipeparts.runtime.tfdv import read_statistics

    read = read_statistics(statistics)
    tfdv.write_stats_text(read, str(tmp_path / "stats.pbtxt"))
    with tf.io.TFRecordWriter(str(tmp_path / "stats.tfrecord")) as writer:
        writer.write(read.SerializeToString())
    for name in ("stats.pbtxt", "stats.tfrecord"):
        assert read_statistics(tmp_path / name) == read
    assert read_statistics(statistics / "Split-train") == read


def test_statistics_of_two_splits_are_refused(statistics: Path, tmp_path: Path) -> None:
    content = (statistics / "Split-train" / "FeatureStats.pb").read_bytes()
    for split in ("train", "eval"):
        (tmp_path / "both" / f"Split-{split}").mkdir(parents=True)
        (tmp_path / "both" / f"Split-{split}" / "FeatureStats.pb").write_bytes(content)
    with pytest.raises(ContractError, match="more than one split"):
        infer(tmp_path / "both", tmp_path / "out")
