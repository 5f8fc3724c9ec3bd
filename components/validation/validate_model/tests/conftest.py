"""The same small models and flights as `evaluate_model` is tested with."""

import importlib.util
from pathlib import Path

_FILE = Path(__file__).parents[2] / "evaluate_model" / "tests" / "conftest.py"
_spec = importlib.util.spec_from_file_location("models_of_evaluate_model", _FILE)
_shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_shared)

make_model = _shared.make_model
flights = _shared.flights
flights_table = _shared.flights_table
