"""What the model of a run adds: against the majority class and a logistic regression, on the same test table.

    .venv/bin/python benchmarks/baselines.py .pipeparts/runs/<run>

The logistic regression sees the same raw columns as the model: numbers with their median for what is missing, and
standardized; text, and whole numbers with few values, one-hot (rare values together).
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from pipeparts.runtime.models import LoadedModel
from pipeparts.runtime.tables import Table


def main() -> None:
    """Prints the comparison as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's folder")
    run = parser.parse_args().run
    outputs = _outputs(run)
    model = LoadedModel(outputs["model"])
    train, test = (_rows(outputs[name], model) for name in ("train_table", "test_table"))
    label = model.info.label
    truth = (test[label] == model.info.positive_class).to_numpy(int)
    scores = {
        "majority class (the base rate)": np.full(len(test), (train[label] == model.info.positive_class).mean()),
        "logistic regression": _logistic(train, test, label),
        f"the model ({model.info.framework})": model.predict(test)["probability"].to_numpy(float),
    }
    print(f"{len(train):,} rows of training, {len(test):,} of test, {truth.mean():.1%} positive\n")
    print("| on the test table | ROC AUC | average precision | Brier score |\n|---|---|---|---|")
    for name, score in scores.items():
        auc, precision = roc_auc_score(truth, score), average_precision_score(truth, score)
        print(f"| {name} | {auc:.3f} | {precision:.3f} | {brier_score_loss(truth, score):.4f} |")


def _outputs(run: Path) -> dict[str, Path]:
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    found = {}
    for task in record["tasks"]:
        for name, output in task["outputs"].items():
            if output.get("uri"):
                found[name] = run / output["uri"]
    return found


def _rows(path: Path, model: LoadedModel) -> pd.DataFrame:
    table = Table(path).read([*model.info.columns, model.info.label]).to_pandas()
    return table[table[model.info.label].notna()].reset_index(drop=True)


def _logistic(train: pd.DataFrame, test: pd.DataFrame, label: str) -> Any:
    columns = train.columns.drop(label)
    times = [name for name in columns if pd.api.types.is_datetime64_any_dtype(train[name])]
    parts = {}
    for frame in (train, test):
        parts[id(frame)] = pd.DataFrame(
            {f"{name}_{part}": getattr(frame[name].dt, part) for name in times for part in ("hour", "dayofweek")}
        )
    train_x = pd.concat([train[columns.drop(times)], parts[id(train)]], axis=1)
    test_x = pd.concat([test[columns.drop(times)], parts[id(test)]], axis=1)
    names = list(train_x.columns)
    text = [name for name in names if not pd.api.types.is_numeric_dtype(train_x[name])]
    few = [name for name in names if name not in text and train_x[name].nunique() <= 31]
    numbers = [name for name in names if name not in text + few]
    train_x[text], test_x[text] = train_x[text].fillna(""), test_x[text].fillna("")
    one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=50)
    prepared = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()), numbers),
            ("few", make_pipeline(SimpleImputer(strategy="constant", fill_value=-1), one_hot), few),
            ("text", one_hot, text),
        ]
    )
    pipeline = Pipeline([("prepared", prepared), ("model", LogisticRegression(max_iter=300))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.fit(train_x, train[label])
    positive = list(pipeline.classes_).index(max(pipeline.classes_))
    return pipeline.predict_proba(test_x)[:, positive]


if __name__ == "__main__":
    main()
