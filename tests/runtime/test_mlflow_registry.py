"""Tests of taking turns at a registered model, on a registry in memory that is slow at random."""

import random
import threading
import time
import types

import pytest

from pipeparts.errors import ServiceError
from pipeparts.runtime import mlflow_registry
from pipeparts.runtime.mlflow_registry import TURN_PREFIX, Registry, Turn, without_password


class Client:
    """What `Registry.turn` uses of MLflow's client: each tag is read or written as a whole, after a while."""

    def __init__(self, seed=0):
        self.tags = {}
        self._lock = threading.Lock()
        self._random = random.Random(seed)

    def _wait(self):
        time.sleep(self._random.random() * 0.004)

    def get_registered_model(self, name):
        self._wait()
        tags = dict(self.tags)
        self._wait()
        return types.SimpleNamespace(name=name, tags=tags)

    def set_registered_model_tag(self, name, key, value):
        self._wait()
        with self._lock:
            self.tags = self.tags | {key: value}

    def delete_registered_model_tag(self, name, key):
        self._wait()
        with self._lock:
            self.tags = {other: value for other, value in self.tags.items() if other != key}


@pytest.mark.parametrize("seed", range(4))
def test_turns_never_overlap_and_all_come(seed, monkeypatch):
    monkeypatch.setattr(mlflow_registry, "_TURN_POLL_SECONDS", 0.001)
    registry = Registry("http://host", Client(seed))
    inside, overlaps, done = [], [], []

    def register(who):
        for _ in range(3):
            with registry.turn("late", who):
                inside.append(who)
                overlaps.extend([list(inside)] if len(inside) > 1 else [])
                time.sleep(0.001)
                inside.remove(who)
        done.append(who)

    threads = [threading.Thread(target=register, args=(str(number),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not overlaps
    assert len(done) == 6
    assert registry.client.tags == {}


def test_a_turn_that_a_dead_process_left_is_passed_over(monkeypatch):
    monkeypatch.setattr(mlflow_registry, "_TURN_SECONDS", 0.5)
    client = Client()
    client.tags = {f"{TURN_PREFIX}0": "dead", "other": "tag"}
    registry = Registry("http://host", client)
    started = time.monotonic()
    with registry.turn("late"):
        assert time.monotonic() - started >= 0.5
    assert client.tags == {"other": "tag"}


@pytest.mark.parametrize("key", ["0", "~"])
def test_a_turn_that_is_taken_is_waited_for(key):
    client = Client()
    client.tags = {f"{TURN_PREFIX}{key}": "alive"}
    threading.Timer(0.3, client.delete_registered_model_tag, ("late", f"{TURN_PREFIX}{key}")).start()
    started = time.monotonic()
    with Registry("http://host", client).turn("late"):
        assert time.monotonic() - started >= 0.25


def test_a_turn_that_took_too_long_may_not_write():
    with pytest.raises(ServiceError, match="too slowly to register safely"):
        Turn(until=time.monotonic() - 1).require_time()


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:secret@host:1/path?token=x", "https://host:1/path"),
        ("sqlite:////a/b.db?key=x", "sqlite:////a/b.db"),
        ("mlruns", "mlruns"),
    ],
)
def test_a_uri_is_shown_without_its_password(uri, shown):
    assert without_password(uri) == shown
