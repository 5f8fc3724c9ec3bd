"""A pipeline with everything in it that can change: a condition, a loop, an exit handler, a nested pipeline."""

from typing import NamedTuple

from kfp import dsl

IMAGE = "registry.example/team/python:1.0"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def load(source: str, rows: int = 10) -> int:
    """Loads rows."""
    # A comment.
    return rows + len(source)


@dsl.component(base_image=IMAGE, packages_to_install=["polars==1.30.0"])
def split(source: str, train: dsl.Output[dsl.Dataset], test: dsl.Output[dsl.Dataset], share: float = 0.8):
    """Splits rows."""
    train.metadata["source"] = source


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(table: dsl.Input[dsl.Dataset], model: dsl.Output[dsl.Model], depth: int = 3):
    """Trains."""


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def score(model: dsl.Input[dsl.Model], table: dsl.Input[dsl.Dataset], name: str = "all") -> float:
    """Scores."""
    return 0.5


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def tell(text: str):
    """Tells."""
    text.strip()


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def finish(status: dsl.PipelineTaskFinalStatus):
    """Finishes."""


@dsl.container_component
def shell(text: str):
    return dsl.ContainerSpec(image=IMAGE, command=["echo"], args=["--text", text])


@dsl.pipeline(name="scoring")
def scoring(table: dsl.Input[dsl.Dataset], depth: int = 5) -> float:
    trained = train(table=table, depth=depth)
    return score(model=trained.outputs["model"], table=table).output


class Outputs(NamedTuple):
    Model: dsl.Model


@dsl.pipeline(name="sample")
def sample(source: str, rows: int = 10, names: list = ["a"], label: str = "x", options: dict = {}) -> Outputs:  # noqa: B006
    """What everything is tried on."""
    done = finish()
    with dsl.ExitHandler(done, name="work"):
        told = shell(text=label)
        told.set_display_name("Tell them")
        tell(text="again").after(told)
    loaded = load(source=source, rows=rows)
    loaded.set_retry(3, backoff_duration="10s")
    parts = split(source=f"{source}/{loaded.output}")
    parts.set_cpu_limit("2").set_memory_limit("4G").set_env_variable("MODE", "fast")
    trained = train(table=parts.outputs["train"])
    trained.set_caching_options(False)
    scored = scoring(table=parts.outputs["test"])
    with dsl.If(scored.output > 0.7, name="good"):
        with dsl.ParallelFor(names, parallelism=2) as name:
            score(model=trained.outputs["model"], table=parts.outputs["test"], name=name)
        tell(text="good")
    imported = dsl.importer(artifact_uri="gs://bucket/model", artifact_class=dsl.Model, reimport=False)
    score(model=imported.output, table=parts.outputs["test"]).after(loaded)
    return Outputs(Model=trained.outputs["model"])


@dsl.pipeline(name="sample")
def without_condition(source: str):
    loaded = load(source=source)
    tell(text="done").after(loaded)
    last = tell(text=f"last {source}")
    last.after(loaded)


@dsl.pipeline(name="sample")
def with_condition(source: str):
    loaded = load(source=source)
    with dsl.If(loaded.output > 3):
        tell(text="done").after(loaded)
    last = tell(text=f"last {source}")
    last.after(loaded)
