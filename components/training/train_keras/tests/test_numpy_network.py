"""Tests of the library's own network run by numpy: it answers as TensorFlow does, and without TensorFlow."""

import dataclasses
import logging
import subprocess
import sys

import numpy as np
import pytest

from pipeparts.components.training.train_keras import export
from pipeparts.components.training.train_keras.network import NetworkSpec, build_network
from pipeparts.runtime.serving.network import ACTIVATIONS, Network
from pipeparts.runtime.training import Target

SPEC = NetworkSpec(
    numeric_names=("a", "b", "c"),
    category_names=("k", "l"),
    category_sizes=(5, 40),
    task="classification",
    outputs=1,
    options={},
    hidden_units=(16, 8),
    activation="relu",
    dropout=0.1,
    batch_norm=False,
    wide=True,
    largest_embedding=32,
)
PLAIN = Target(label="y", task="classification", classes=(0, 1), class_rows=(5, 5), mean=0.0, scale=1.0, rows=10,
               unlabelled=0)  # fmt: skip
MANY = dataclasses.replace(PLAIN, classes=("x", "y", "z"), class_rows=(5, 3, 2))
NUMBER = dataclasses.replace(PLAIN, task="regression", classes=(), class_rows=(), mean=250.0, scale=90.0)


def build(spec):
    """A network whose weights, and what it has seen of a batch, are all other than at the start."""
    network = build_network("", spec)
    random = np.random.default_rng(0)
    for variable in network.variables:
        values = random.normal(0, 0.5, variable.shape)
        variable.assign(np.abs(values) + 0.1 if "variance" in variable.name else values)
    return network


def rows(spec, count):
    random = np.random.default_rng(1)
    numeric = random.normal(0, 2, (count, len(spec.numeric_names))).astype(np.float32)
    ids = [random.integers(0, size, count).astype(np.int32) for size in spec.category_sizes]
    return numeric, np.array(ids, np.int32).reshape(len(ids), count).T


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("target", [PLAIN, MANY, NUMBER], ids=["two classes", "three classes", "number"])
def test_numpy_gives_the_scores_of_the_network(tmp_path, activation, batch_norm, wide, target):
    spec = dataclasses.replace(
        SPEC, activation=activation, batch_norm=batch_norm, wide=wide, task=target.task, outputs=target.outputs
    )
    network = build(spec)
    export.write_network(tmp_path / "network.npz", network, spec, target)
    scores = Network.load(tmp_path / "network.npz").score
    for count in (1, 127, 128, 5_000):
        numeric, categories = rows(spec, count)
        found = scores(numeric, categories)
        expected = np.asarray(export._scorer(network, target)(numeric, categories))
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max(initial=1)
        again = scores(np.ascontiguousarray(numeric), np.ascontiguousarray(categories))
        assert np.allclose(found, again, rtol=1e-6, atol=1e-6), "whatever way the rows lie in memory"
    none = scores(*rows(spec, 0))  # TensorFlow fails on no rows where it adds several scores
    assert none.shape == ((0,) if target.outputs == 1 else (0, target.outputs))


@pytest.mark.parametrize(
    "changes",
    [{"numeric_names": ()}, {"category_names": (), "category_sizes": ()}, {"hidden_units": (4,)}],
    ids=["categories alone", "numbers alone", "one layer"],
)
def test_features_of_one_kind_are_enough(tmp_path, changes):
    spec = dataclasses.replace(SPEC, **changes)
    network = build(spec)
    export.write_network(tmp_path / "network.npz", network, spec, PLAIN)
    numeric, categories = rows(spec, 300)
    expected = np.asarray(export._scorer(network, PLAIN)(numeric, categories))
    assert np.allclose(Network.load(tmp_path / "network.npz").score(numeric, categories), expected, atol=1e-5)


def test_the_same_network_is_the_same_bytes(tmp_path):
    network = build(SPEC)
    for name in ("one", "other"):
        export.write_network(tmp_path / name, network, SPEC, PLAIN)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_what_numpy_lacks_or_gets_wrong_is_left_to_tensorflow(tmp_path, monkeypatch, caplog):
    spec = dataclasses.replace(SPEC, activation="gelu")
    export.write_network(tmp_path / "network.npz", build(spec), spec, PLAIN)
    assert not (tmp_path / "network.npz").exists()
    monkeypatch.setitem(ACTIVATIONS, "relu", lambda x: x)
    with caplog.at_level(logging.WARNING):
        export.write_network(tmp_path / "network.npz", build(SPEC), SPEC, PLAIN)
    assert not (tmp_path / "network.npz").exists()
    assert "TensorFlow will run it" in caplog.text


def test_a_file_of_another_format_is_refused(tmp_path):
    export.write_network(tmp_path / "network.npz", build(SPEC), SPEC, PLAIN)
    network = Network.load(tmp_path / "network.npz")
    with pytest.raises(ValueError, match=r"not a network of the format 'pipeparts\.network/1': 'later'"):
        Network({**network.about, "format": "later"}, network.weights)


def test_the_network_needs_numpy_alone():
    code = "import sys; import pipeparts.runtime.serving.keras_model; print(sorted({'tensorflow', 'keras', 'pandas', "
    code += "'mlflow', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
