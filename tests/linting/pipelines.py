"""Small pipelines for the linter: a clean one, those that break a rule, and what is near to them and breaks none."""

from kfp import dsl

IMAGE = "registry.example/team/python:1.0"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def number(seed: int = 0) -> int:
    return seed


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def names() -> list:
    return ["a", "b"]


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def two(table: dsl.Output[dsl.Dataset], ok: dsl.OutputPath(bool), listed: dsl.OutputPath(list)):
    pass


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def make(table: dsl.Output[dsl.Dataset], text: str = ""):
    pass


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def use(table: dsl.Input[dsl.Dataset]):
    pass


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gather(tables: dsl.Input[list[dsl.Dataset]]):
    pass


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def total(numbers: list) -> int:
    return sum(numbers)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def say(text: str):
    pass


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def finish(status: dsl.PipelineTaskFinalStatus):
    pass


@dsl.component(base_image=IMAGE)
def installs_kfp(seed: int) -> int:
    return seed


@dsl.component(base_image="python:latest", install_kfp_package=False)
def unpinned(seed: int) -> int:
    return seed


@dsl.component(base_image=IMAGE, target_image="registry.example/team/packed:1.0", install_kfp_package=False)
def packed(seed: int) -> int:
    return seed


@dsl.container_component
def contained(text: str):
    return dsl.ContainerSpec(image=IMAGE, command=["echo"], args=["--text", text])


@dsl.container_component
def joined(text: str):
    return dsl.ContainerSpec(image=IMAGE, command=["echo"], args=[dsl.ConcatPlaceholder(["--text=", text])])


@dsl.container_component
def present(text: str = ""):
    return dsl.ContainerSpec(image=IMAGE, command=["echo"], args=[dsl.IfPresentPlaceholder("text", ["--text", text])])


@dsl.pipeline(name="clean")
def clean(source: str, seed: int = 1):
    made = make(text=source)
    use(table=made.outputs["table"])
    seeded = number(seed=seed)
    with dsl.If(seeded.output > 3, name="large"):
        say(text="large")


@dsl.pipeline(name="named-condition")
def named_condition():
    decided = two()
    with dsl.If(decided.outputs["ok"] == True):  # noqa: E712
        say(text="yes")


@dsl.pipeline(name="nested-named-condition")
def nested_named_condition(go: bool = True):
    decided = two()
    with dsl.If(go == True), dsl.If(decided.outputs["ok"] == True):  # noqa: E712
        say(text="yes")


@dsl.pipeline(name="loop-over-output")
def loop_over_output():
    listed = names()
    with dsl.ParallelFor(listed.output) as item:
        say(text=item)


@dsl.pipeline(name="loop-over-named-output")
def loop_over_named_output():
    listed = two()
    with dsl.ParallelFor(listed.outputs["listed"]) as item:
        say(text=item)


@dsl.pipeline(name="one-of-parameters")
def one_of_parameters(seed: int = 1) -> int:
    with dsl.If(seed == 1):
        first = number(seed=1)
    with dsl.Else():
        second = number(seed=2)
    return dsl.OneOf(first.output, second.output)


@dsl.pipeline(name="one-of-artifacts")
def one_of_artifacts(seed: int = 1) -> dsl.Dataset:
    with dsl.If(seed == 1):
        first = make(text="a")
    with dsl.Else():
        second = make(text="b")
    return dsl.OneOf(first.outputs["table"], second.outputs["table"])


@dsl.pipeline(name="takes-an-artifact")
def takes_an_artifact(table: dsl.Input[dsl.Dataset]):
    use(table=table)


@dsl.pipeline(name="imports")
def imports(uri: str):
    brought = dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset)
    use(table=brought.output)


@dsl.pipeline(name="imports-from-the-web")
def imports_from_the_web():
    brought = dsl.importer(artifact_uri="https://data.example/t.csv", artifact_class=dsl.Dataset)
    use(table=brought.output)


@dsl.pipeline(name="imports-from-a-bucket")
def imports_from_a_bucket():
    brought = dsl.importer(artifact_uri="gs://bucket/t.csv", artifact_class=dsl.Dataset)
    use(table=brought.output)


@dsl.pipeline(name="in-an-image")
def in_an_image():
    packed(seed=1)


@dsl.pipeline(name="handled")
def handled():
    with dsl.ExitHandler(finish()):
        number(seed=1)


@dsl.pipeline(name="loop-in-exit-handler")
def loop_in_exit_handler():
    with dsl.ExitHandler(finish()), dsl.ParallelFor(["a", "b"]) as item:
        say(text=item)


@dsl.pipeline(name="ignores-failures")
def ignores_failures():
    first = number(seed=1)
    number(seed=first.output).ignore_upstream_failure()


@dsl.pipeline(name="collected")
def collected():
    with dsl.ParallelFor([1, 2]) as seed:
        each = number(seed=seed)
    total(numbers=dsl.Collected(each.output))


@dsl.pipeline(name="loop-of-many")
def loop_of_many():
    with dsl.ParallelFor(list(range(101))) as seed:
        number(seed=seed)


@dsl.pipeline(name="collects-many")
def collects_many():
    with dsl.ParallelFor([str(number) for number in range(101)]) as text:
        made = make(text=text)
    gather(tables=dsl.Collected(made.outputs["table"]))


@dsl.pipeline(name="placeholder-alone")
def placeholder_alone():
    say(text=dsl.PIPELINE_JOB_NAME_PLACEHOLDER)


@dsl.pipeline(name="placeholder-in-text")
def placeholder_in_text():
    say(text=f"run-{dsl.PIPELINE_JOB_NAME_PLACEHOLDER}")


@dsl.pipeline(name="root-placeholder")
def root_placeholder():
    say(text=dsl.PIPELINE_ROOT_PLACEHOLDER)


@dsl.pipeline(name="time-placeholder")
def time_placeholder():
    say(text=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER)


@dsl.pipeline(name="installs")
def installs():
    installs_kfp(seed=1)


@dsl.pipeline(name="unpinned-image")
def unpinned_image():
    unpinned(seed=1)


@dsl.pipeline(name="contained")
def container():
    contained(text="a")


@dsl.pipeline(name="joins")
def joins():
    joined(text="a")


@dsl.pipeline(name="asks")
def asks():
    present(text="a")


@dsl.pipeline(name="small-machine")
def small_machine():
    number(seed=1).set_cpu_limit("8").set_memory_limit("32G")


@dsl.pipeline(name="large-machine")
def large_machine():
    number(seed=1).set_cpu_limit("128")


@dsl.pipeline(name="large-memory")
def large_memory():
    number(seed=1).set_memory_limit("1T")


@dsl.pipeline(name="sized-by-parameter")
def sized_by_parameter(cpus: str = "2"):
    number(seed=1).set_cpu_limit(cpus)


@dsl.pipeline(name="gpu-of-vertex")
def gpu_of_vertex():
    number(seed=1).set_accelerator_type("NVIDIA_L4").set_accelerator_limit(1)


@dsl.pipeline(name="gpu-of-kubernetes")
def gpu_of_kubernetes():
    number(seed=1).set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)


@dsl.pipeline(name="optional")
def optional(text: str = None):  # noqa: RUF013 (kfp reads it)
    print_it = make(text=text)
    use(table=print_it.outputs["table"])
