"""A TFX pipeline, from a CSV file to a pushed model: what a team may have before it meets pipeparts.

In the tfx image: `python3 tfx_flights.py FOLDER_WITH_CSV WORK_FOLDER`. docs/tfx.md says what meets what.
"""

import sys
from pathlib import Path

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_model_analysis.proto import config_pb2
from tfx import v1 as tfx

LABEL = "late"


def preprocessing_fn(inputs):
    """TensorFlow Transform's function: raw columns in, features out."""
    return {
        "distance": tft.scale_to_z_score(tf.cast(inputs["distance"], tf.float32)),
        "hour": tft.scale_to_0_1(tf.cast(inputs["hour"], tf.float32)),
        "carrier": tft.compute_and_apply_vocabulary(inputs["carrier"], num_oov_buckets=1),
        LABEL: inputs[LABEL],
    }


class Served(tf.Module):
    """The model as TF Serving and TFX's Evaluator call it: serialized examples of raw columns in."""

    def __init__(self, model, transform):
        super().__init__()
        self.model = model
        self.layer = transform.transform_features_layer()
        self.spec = {name: spec for name, spec in transform.raw_feature_spec().items() if name != LABEL}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(self, examples):
        """The probability that a flight is late."""
        features = self.layer(tf.io.parse_example(examples, self.spec))
        return {"probability": self.model({name: features[name] for name in ("distance", "hour", "carrier")})}


def run_fn(arguments):
    """TFX's Trainer calls it."""
    transform = tft.TFTransformOutput(arguments.transform_output)
    spec = transform.transformed_feature_spec()
    files = [f for folder in arguments.train_files for f in tf.io.gfile.glob(folder)]
    rows = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(128)
    rows = rows.map(lambda examples: tf.io.parse_example(examples, spec))
    ids = max(transform.transformed_domains()["carrier"].max + 1, 2)
    inputs = {
        "distance": keras.Input((1,), name="distance"),
        "hour": keras.Input((1,), name="hour"),
        "carrier": keras.Input((1,), dtype="int64", name="carrier"),
    }
    carrier = keras.layers.Flatten()(keras.layers.Embedding(ids, 4)(inputs["carrier"]))
    joined = keras.layers.Concatenate()([inputs["distance"], inputs["hour"], carrier])
    hidden = keras.layers.Dense(8, activation="relu")(joined)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(hidden))
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="binary_crossentropy")
    model.fit(rows.map(lambda row: ({name: row[name] for name in inputs}, row[LABEL])), epochs=3, verbose=0)
    served = Served(model, transform)
    tf.saved_model.save(served, arguments.serving_model_dir, signatures={"serving_default": served.serve})


def make_pipeline(data, work):
    """ExampleGen to Pusher.

    Args:
        data: A folder with a CSV file.
        work: Where everything goes.
    """
    examples = tfx.components.CsvExampleGen(input_base=str(data))
    statistics = tfx.components.StatisticsGen(examples=examples.outputs["examples"])
    schema = tfx.components.SchemaGen(statistics=statistics.outputs["statistics"])
    anomalies = tfx.components.ExampleValidator(
        statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"]
    )
    transform = tfx.components.Transform(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        preprocessing_fn="tfx_flights.preprocessing_fn",
    )
    trainer = tfx.components.Trainer(
        run_fn="tfx_flights.run_fn",
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        train_args=tfx.proto.TrainArgs(splits=["train"]),
        eval_args=tfx.proto.EvalArgs(splits=["eval"]),
    )
    metric = config_pb2.MetricConfig(class_name="AUC")
    metric.threshold.value_threshold.lower_bound.value = 0.3
    evaluator = tfx.components.Evaluator(
        examples=examples.outputs["examples"],
        model=trainer.outputs["model"],
        eval_config=config_pb2.EvalConfig(
            model_specs=[config_pb2.ModelSpec(signature_name="serving_default", label_key=LABEL)],
            metrics_specs=[config_pb2.MetricsSpec(metrics=[metric])],
            slicing_specs=[config_pb2.SlicingSpec()],
            options=config_pb2.Options(include_default_metrics={"value": False}),
        ),
    )
    pusher = tfx.components.Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(Path(work) / "pushed"))
        ),
    )
    return tfx.dsl.Pipeline(
        pipeline_name="flights",
        pipeline_root=str(Path(work) / "root"),
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(Path(work) / "metadata.db")
        ),
        components=[examples, statistics, schema, anomalies, transform, trainer, evaluator, pusher],
        beam_pipeline_args=["--runner=FnApiRunner"],
        enable_cache=False,
    )


if __name__ == "__main__":
    tfx.orchestration.LocalDagRunner().run(make_pipeline(*sys.argv[1:3]))
