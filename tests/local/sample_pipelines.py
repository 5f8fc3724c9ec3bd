"""Pipelines for the tests of local runs. Every step that runs adds a line to the file `marks`."""
# KFP reads Optional[...]; a component ships alone, and needs no more than the builtins.
# ruff: noqa: PTH103, PTH108, PTH109, PTH110, PTH123, T201, UP006, UP035, UP045

from typing import List, NamedTuple, Optional

from kfp import dsl

from pipeparts.components import trigger_pipeline

IMAGE = "pipeparts-python-data"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def make(table: dsl.Output[dsl.Dataset], metrics: dsl.Output[dsl.Metrics], marks: str, rows: int = 3) -> int:
    """Makes a table."""
    with open(marks, "a") as file:
        file.write("make\n")
    with open(table.path, "w") as file:
        file.write("x" * rows)
    table.metadata["rows"] = rows
    metrics.log_metric("rows", rows)
    return rows


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def use(table: dsl.Input[dsl.Dataset], marks: str, name: str = "use") -> str:
    """Reads a table."""
    with open(marks, "a") as file:
        file.write(f"{name}\n")
    with open(table.path) as file:
        return f"{name} read {len(file.read())}"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def mark(marks: str, name: str, seconds: float = 0.0, count: int = 0) -> str:
    """Says that it was here, and waits."""
    import os
    import time

    with open(marks, "a") as file:
        file.write(f"{name} {os.getpid()}\n")
    time.sleep(seconds)
    return name


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def need(path: str, marks: str, after: str = "") -> str:
    """Fails while a file is not there."""
    import os

    from pipeparts.runtime.errors import DataError

    with open(marks, "a") as file:
        file.write("need\n")
    if not os.path.exists(path):
        raise DataError("the file is not there", where=path, allowed="a file", received="nothing", hint="make it")
    return path


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def end_badly(how: str) -> str:
    """Ends in a way of its own."""
    import os
    import signal
    import sys

    print(f"about to end: {how}")
    if how == "error":
        values = {"a": 1}
        return str(values["b"])
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "crashed":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "exit":
        sys.exit(3)
    return how


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def flaky(path: str) -> int:
    """Fails twice, then works."""
    with open(path, "a") as file:
        file.write("x")
    with open(path) as file:
        tries = len(file.read())
    if tries < 3:
        raise ValueError(f"try {tries}")
    return tries


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def variables(names: list) -> dict:
    """Tells what is in some environment variables."""
    import os

    return {name: os.environ.get(name, "") for name in names}


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def hang(how: str) -> str:
    """Does not end by itself."""
    import ctypes
    import time

    if how == "native":
        ctypes.PyDLL(None).sleep(600)  # with the interpreter's lock held
    try:
        time.sleep(600)
    finally:
        print("cleaned up")
        if how == "stubborn":
            time.sleep(600)
    return how


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def named(n: int) -> NamedTuple("Outputs", [("n", int), ("names", list)]):
    """Gives named outputs."""
    return (n, [f"name{number}" for number in range(n)])


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def same(value: str) -> str:
    """Gives back what it gets."""
    return value


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def options_of(options: Optional[dict] = None, names: Optional[list] = None) -> str:
    """Says what it got."""
    return f"{options} {names}"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def outcome(marks: str, run_name: str, status: dsl.PipelineTaskFinalStatus) -> str:
    """Notes how the run went."""
    with open(marks, "a") as file:
        file.write(f"outcome {status.state} {run_name}\n")
    return status.state


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def total(numbers: list) -> float:
    """Adds numbers up."""
    return float(sum(numbers))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def use_all(tables: dsl.Input[List[dsl.Dataset]], marks: str) -> str:
    """Reads tables."""
    with open(marks, "a") as file:
        file.write("use_all\n")
    lengths = []
    for table in tables:
        with open(table.path) as file:
            lengths.append(f"{len(file.read())} of {table.metadata['rows']:.0f}")
    return ", ".join(lengths)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def meet(folder: str, name: str, other: str, seconds: float = 60.0) -> str:
    """Waits until the other one is here too, and fails where it does not come."""
    import os
    import time

    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "w"):
        pass
    deadline = time.monotonic() + seconds
    while not os.path.exists(os.path.join(folder, other)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{other} did not come")
        time.sleep(0.01)
    return name


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def alone(path: str, name: str) -> str:
    """Fails where another one is here."""
    import os
    import time

    handle = os.open(path, os.O_CREAT | os.O_EXCL)
    time.sleep(0.2)
    os.close(handle)
    os.unlink(path)
    return name


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def surroundings(marks: str) -> dict:
    """Tells what a step sees of its environment."""
    import os
    import sys

    import pipeparts

    names = ("MLFLOW_TRACKING_URI", "TF_CPP_MIN_LOG_LEVEL", "GREETING")
    return {
        **{name: os.environ.get(name, "") for name in names},
        "cwd": os.getcwd(),
        "python": sys.executable,
        "stdin": sys.stdin.read(),
        "pipeparts": pipeparts.__version__,
    }


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def foreign(text: str) -> str:
    """A component of another library."""
    return text.upper()


@dsl.container_component
def container(text: str):
    """A step whose code is in its image."""
    return dsl.ContainerSpec(image="alpine:3.20", command=["echo"], args=[text])


@dsl.pipeline(name="basic")
def basic(marks: str, rows: int = 3, name: str = "use") -> str:
    """Makes a table and reads it."""
    made = make(marks=marks, rows=rows).set_display_name("Make the table")
    return use(table=made.outputs["table"], marks=marks, name=name).output


@dsl.pipeline(name="resumed")
def resumed(marks: str, path: str) -> None:
    """Fails in its second step while a file is missing; a third does not depend on it."""
    first = mark(marks=marks, name="first").set_display_name("first")
    second = need(path=path, marks=marks, after=first.output).set_caching_options(True)
    mark(marks=marks, name="third").after(second).set_display_name("third")
    with dsl.If(first.output == "first", name="always"):
        mark(marks=marks, name="beside").set_display_name("beside")


@dsl.pipeline(name="slow")
def slow(marks: str, seconds: float = 60.0) -> None:
    """A quick step, then one that takes its time."""
    first = mark(marks=marks, name="quick")
    mark(marks=marks, name="slow", seconds=seconds).after(first).set_display_name("slow")


@dsl.pipeline(name="badly")
def badly(how: str) -> None:
    """One step, which ends badly."""
    end_badly(how=how)


@dsl.pipeline(name="retried")
def retried(path: str) -> int:
    """A step that works the third time."""
    return flaky(path=path).set_retry(3, backoff_duration="0s").output


@dsl.pipeline(name="told")
def told(names: list) -> None:
    """Shows a step's variables."""
    variables(names=names)


@dsl.pipeline(name="hanging")
def hanging(how: str) -> None:
    """A step that does not end."""
    hang(how=how)


@dsl.pipeline(name="tried_once")
def tried_once(path: str) -> int:
    """A step that fails, and is not tried again."""
    return flaky(path=path).output


@dsl.pipeline(name="steered")
def steered(marks: str, n: int = 5) -> None:
    """A condition and a loop on named outputs, which kfp.local cannot resolve."""
    steering = named(n=n)
    with dsl.If(steering.outputs["n"] > 1, name="big"):
        mark(marks=marks, name="inside")
    with dsl.Elif(steering.outputs["n"] > 0, name="small"):
        mark(marks=marks, name="other")
    with dsl.ParallelFor(steering.outputs["names"], name="each name") as name:
        mark(marks=marks, name=name)


@dsl.pipeline(name="quoted")
def quoted(marks: str, value: str) -> None:
    """A condition on a text with a quote in it."""
    with dsl.If(same(value=value).output == "x", name="is x"):
        mark(marks=marks, name="inside")


@dsl.pipeline
def inner(marks: str, rows: int) -> int:
    """A pipeline to be used in another."""
    return make(marks=marks, rows=rows).outputs["Output"]


@dsl.pipeline(name="everything", display_name="Everything", description="All kinds of groups.")
def everything(marks: str, rows: int = 2, options: Optional[dict] = None) -> None:
    """Groups of every kind."""
    last = outcome(marks=marks, run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER).set_caching_options(False)
    with dsl.ExitHandler(last, name="guarded"):
        made = make(marks=marks, rows=rows)
        with dsl.If(made.outputs["Output"] > 1, name="many"):
            chosen = use(table=made.outputs["table"], marks=marks, name="many")
        with dsl.Else(name="few"):
            other = use(table=made.outputs["table"], marks=marks, name="few")
        same(value=dsl.OneOf(chosen.output, other.output)).set_display_name("either")
        with dsl.ParallelFor([1, 2, 3], name="each") as n:
            make(marks=marks, rows=n)
        one = inner(marks=marks, rows=5)
        two = inner(marks=marks, rows=6)
        same(value="after").after(one, two)
        options_of(options=options)


@dsl.pipeline(name="guarded")
def guarded(marks: str, path: str) -> None:
    """An exit handler around a step that fails while a file is missing."""
    last = outcome(marks=marks, run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER).set_caching_options(False)
    with dsl.ExitHandler(last):
        first = need(path=path, marks=marks)
        mark(marks=marks, name="later").after(first)


@dsl.pipeline(name="many")
def many(marks: str) -> None:
    """Ten trivial steps, one after the other."""
    previous = mark(marks=marks, name="0")
    for number in range(1, 10):
        previous = mark(marks=marks, name=previous.output, count=number)


@dsl.pipeline(name="seen")
def seen(marks: str) -> None:
    """Shows a step's surroundings."""
    surroundings(marks=marks)


@dsl.pipeline(name="foreigner")
def foreigner(text: str = "hello") -> str:
    """A pipeline of another library."""
    return foreign(text=text).output


@dsl.pipeline(name="contained")
def contained(text: str = "hello") -> None:
    """A pipeline with a container component."""
    container(text=text)


@dsl.pipeline(name="typed")
def typed(
    text: str,
    whole: int = 1,
    number: float = 0.5,
    flag: bool = False,
    names: list = [],  # noqa: B006
    options: dict = {"epochs": 2, "deep": {"a": 1}},  # noqa: B006
    source: str = "",
    source_version: str = "",
    network: str = "",
    network_version: str = "",
    pipeline_hash: str = "",
) -> str:
    """A parameter of every type."""
    return same(value=text).output


@dsl.pipeline(name="looped")
def looped(marks: str, paths: list = ["a", "b", "c"]) -> None:  # noqa: B006
    """A loop of which one iteration fails."""
    with dsl.ParallelFor(paths, name="each path") as path:
        need(path=path, marks=marks)


@dsl.pipeline(name="demo")
def demo(marks: str, path: str, seconds: float = 2.0) -> None:
    """To look at."""
    last = outcome(marks=marks, run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER).set_caching_options(False)
    with dsl.ExitHandler(last, name="everything"):
        made = make(marks=marks, rows=3)
        waited = mark(marks=marks, name="wait", seconds=seconds).after(made)
        with dsl.If(waited.output == "wait", name="it waited"):
            mark(marks=marks, name="inside", seconds=seconds)
        with dsl.If(waited.output == "no", name="it did not"):
            mark(marks=marks, name="never")
        with dsl.ParallelFor([1, 2, 3], name="each") as n:
            make(marks=marks, rows=n).after(waited)
        needed = need(path=path, marks=marks).after(waited)
        mark(marks=marks, name="later").after(needed)


@dsl.pipeline(name="outer")
def outer(pipeline: str, parameters: dict, key: str = "k1") -> str:
    """Starts another pipeline."""
    started = trigger_pipeline(pipeline=pipeline, parameters=parameters, key=key)
    started.set_caching_options(False)
    return started.outputs["Output"]


@dsl.pipeline(name="gathered")
def gathered(marks: str, sizes: list = [1, 2, 3]) -> str:  # noqa: B006
    """Loops whose results are gathered, loops in loops, items with fields."""
    with dsl.ParallelFor(sizes, name="each size", parallelism=2) as size:
        made = make(marks=marks, rows=size)
    total(numbers=dsl.Collected(made.outputs["Output"])).set_display_name("rows in all")
    with dsl.ParallelFor([{"a": "v", "b": "x"}, {"a": "w", "b": "y"}], name="each pair") as pair:
        mark(marks=marks, name=pair.b)
        same(value=pair.a).set_display_name("same for each")
    with dsl.ParallelFor(["p", "q"], name="each letter") as letter:
        with dsl.ParallelFor([5, 6], name="each number") as number:
            mark(marks=marks, name=letter, count=number)
        with dsl.If(letter == "q", name="it is q"):
            same(value=letter).set_display_name("same for q")
    return use_all(tables=dsl.Collected(made.outputs["table"]), marks=marks).output


@dsl.pipeline(name="imported")
def imported(marks: str, path: str) -> str:
    """Brings a file in, and fills values into texts."""
    table = dsl.importer(artifact_uri=path, artifact_class=dsl.Dataset, metadata={"rows": 2, "of": "a test"})
    said = same(value=f"{path} and 'more'")
    return use(table=table.output, marks=marks, name=f"<{said.output}>").output


@dsl.pipeline(name="chosen")
def chosen(marks: str, which: str) -> str:
    """One of two tables, which kfp.local cannot choose."""
    with dsl.If(which == "small"):
        small = make(marks=marks, rows=1)
    with dsl.Else():
        large = make(marks=marks, rows=9)
    return use(table=dsl.OneOf(small.outputs["table"], large.outputs["table"]), marks=marks).output


@dsl.pipeline(name="skipping")
def skipping(marks: str) -> None:
    """A branch that does not run, and a step that KFP's compiler does not let depend on it."""
    with dsl.If(same(value="no").output == "yes", name="yes"):
        mark(marks=marks, name="inside")
    mark(marks=marks, name="after").set_display_name("after")


@dsl.pipeline(name="meeting")
def meeting(folder: str, path: str) -> str:
    """Two steps that need each other at work, and what comes after each; one more that may fail."""
    one = meet(folder=folder, name="one", other="two").set_display_name("one")
    two = meet(folder=folder, name="two", other="one").set_display_name("two")
    needed = need(path=path, marks=f"{folder}.marks").set_display_name("need")
    same(value=one.output).set_display_name("after one")
    same(value=two.output).after(needed).set_display_name("after need")
    return same(value=f"{one.output} and {two.output}").output


@dsl.pipeline(name="alone_in_all")
def alone_in_all(path: str) -> None:
    """Steps that would fail side by side."""
    for number in range(3):
        alone(path=path, name=str(number))


@dsl.pipeline(name="loops_side_by_side")
def loops_side_by_side(folder: str, path: str) -> None:
    """A loop whose iterations need each other, and one whose iterations come one after another."""
    pairs = [{"me": "one", "other": "two"}, {"me": "two", "other": "one"}]
    with dsl.ParallelFor(pairs, name="at once") as pair:
        meet(folder=folder, name=pair.me, other=pair.other)
    with dsl.ParallelFor(["a", "b", "c"], name="in turn", parallelism=1) as name:
        alone(path=path, name=name)


@dsl.pipeline(name="twins")
def twins(marks: str) -> None:
    """A loop over equal items."""
    with dsl.ParallelFor(["a", "a", "a"], name="each") as name:
        mark(marks=marks, name=name, seconds=0.2)


@dsl.pipeline(name="wide")
def wide(marks: str, seconds: float = 60.0) -> None:
    """Two steps that take their time side by side."""
    for name in ("left", "right"):
        mark(marks=marks, name=name, seconds=seconds).set_display_name(name)
