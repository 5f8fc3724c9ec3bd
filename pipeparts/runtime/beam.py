"""The options of Apache Beam as a component's parameter: checked, and with defaults for this machine."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeparts.runtime.errors import InputError, PipepartsError, suggest

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

#: The runners, by their name in Beam; those of the first line are in the step itself.
LOCAL_RUNNERS = ("DirectRunner", "FnApiRunner", "PrismRunner")
RUNNERS = (*LOCAL_RUNNERS, "DataflowRunner", "FlinkRunner", "SparkRunner", "PortableRunner")

# Beam's direct runner asks the internet for Prism first, and falls back to this one.
_DIRECT = "FnApiRunner"
_CREDENTIALS = ("access_key", "secret", "token", "password", "connection_string", "gbek", "credentials")
#: The step has to see the result, so the job has to run, once and to its end, while the step waits.
_NOT_HERE = ("no_wait_until_finish", "streaming", "template_location", "update", "dry_run", "pipeline", "help")


def runner_of(beam_options: Mapping[str, Any] | None, *, parameter: str = "beam_options") -> str:
    """The runner that the options name, spelled as Beam does; DirectRunner where they name none.

    Raises:
        InputError: For options that are no dictionary, or a runner that is not known.
    """
    if beam_options is not None and not isinstance(beam_options, Mapping):
        raise InputError(
            "the options of Beam are not a dictionary",
            parameter=parameter,
            allowed='a dictionary of option to value: {"runner": "DataflowRunner", "project": ...}',
            received=f"{type(beam_options).__name__}: {beam_options!r}",
        )
    received = (beam_options or {}).get("runner", LOCAL_RUNNERS[0])
    known = {name.lower(): name for name in RUNNERS}
    spelled = str(received).lower()
    found = known.get(spelled) or known.get(f"{spelled}runner")
    if not isinstance(received, str) or found is None:
        raise InputError(
            "a runner of Beam that is not known",
            parameter=f"{parameter}.runner",
            allowed=RUNNERS,
            received=repr(received),
            hint=suggest(str(received), RUNNERS),
        )
    return found


def is_local(beam_options: Mapping[str, Any] | None, *, parameter: str = "beam_options") -> bool:
    """Whether the runner is in the step itself, so that data that fits need not go through Beam at all.

    Raises:
        InputError: For options that are no dictionary, or a runner that is not known.
    """
    return runner_of(beam_options, parameter=parameter) in LOCAL_RUNNERS


def pipeline_options(
    beam_options: Mapping[str, Any] | None,
    *,
    parameter: str = "beam_options",
    defaults: Mapping[str, Any] | None = None,
) -> PipelineOptions:
    """Checks a dictionary of options, and makes Beam's own object of it.

    The direct runner works in this process with one worker, without the internet; `direct_num_workers` and
    `direct_running_mode` ("multi_processing") make it use more cores. Numbers come out of KFP as 3.0 and go in as 3.

    Args:
        beam_options: Option to value, named as on Beam's command line without the dashes. True for an option without
            a value, a list for one that can be repeated.
        parameter: The parameter's name, for the message.
        defaults: What holds for options that are not given.

    Returns:
        The options.

    Raises:
        InputError: For an option that is not known, a value that does not fit, what the runner needs and does not
            have, a credential, or an option under which the step would not see its result.
    """
    runner = runner_of(beam_options, parameter=parameter)
    from apache_beam.options.pipeline_options import PipelineOptions

    parser = _parser(PipelineOptions)
    actions = {flag.removeprefix("--"): action for action in parser._actions for flag in action.option_strings}
    chosen: dict[str, Any] = {}
    for name, value in {**(defaults or {}), **(beam_options or {}), "runner": runner}.items():
        _check_name(str(name), list(actions), parameter)
        chosen[str(name)] = _value(name, value, actions[str(name)], parameter)
    if runner == LOCAL_RUNNERS[0]:
        chosen["runner"] = _DIRECT
    for name, value in chosen.items():
        _parse(parser, name, value, parameter)
    if runner == "DataflowRunner":
        _check_dataflow(chosen, parameter)
    # Beam validates the rest when a job starts: that asks Google's services.
    return PipelineOptions.from_dictionary(chosen)


@contextlib.contextmanager
def own_errors() -> Iterator[None]:
    """Lets an error of ours out of a Beam pipeline as it was raised.

    Beam raises another of the same type, without its facts; from a worker that is another process it gives text alone.
    """
    try:
        yield
    except Exception as error:
        found: BaseException | None = error
        own = None
        while found is not None:
            own = found if isinstance(found, PipepartsError) else own
            found = found.__cause__ or found.__context__
        if own is None or own is error:
            raise
        raise own from None


def copy_folder(source: str, target: Path) -> None:
    """Copies a folder that may be in a bucket."""
    import tensorflow as tf

    for folder, _, files in tf.io.gfile.walk(source):
        place = target / os.path.relpath(folder, source)
        place.mkdir(parents=True, exist_ok=True)
        for name in files:
            with tf.io.gfile.GFile(os.path.join(folder, name), "rb") as read, (place / name).open("wb") as written:
                shutil.copyfileobj(read, written, 1 << 20)


def _check_dataflow(chosen: Mapping[str, Any], parameter: str) -> None:
    """Beam itself would make a bucket of its own where it finds no place for temporary files."""
    for name in ("project", "region", "temp_location"):
        value = chosen.get(name)
        if value is None or (name == "temp_location" and not str(value).startswith("gs://")):
            raise InputError(
                f"DataflowRunner needs {name}",
                parameter=f"{parameter}.{name}",
                allowed="a folder of a bucket: gs://..." if name == "temp_location" else "a text",
                received="nothing" if value is None else repr(value),
            )


def _parser(options: Any) -> argparse.ArgumentParser:
    """The parser of all of Beam's options, for their names, types and choices."""
    found: list[argparse.ArgumentParser] = []
    options([]).get_all_options(add_extra_args_fn=found.append)
    return found[0]


def _check_name(name: str, known: list[str], parameter: str) -> None:
    # Before anything is said of the value: it would be in the message.
    if any(word in name for word in _CREDENTIALS):
        raise InputError(
            "a credential as an option of Beam",
            parameter=f"{parameter}.{name}",
            allowed="options that everybody may read: parameters are shown in the consoles and kept in the run",
            hint="give the step the right to the data by its service account, or the environment of its container",
        )
    allowed = [option for option in known if option not in _NOT_HERE and not any(w in option for w in _CREDENTIALS)]
    if name in _NOT_HERE and name in known:
        raise InputError(
            "an option of Beam that a step cannot have",
            parameter=f"{parameter}.{name}",
            allowed="a job that runs while the step waits, for the step hands its result on",
            received=name,
        )
    if name not in known:
        bare = name.lstrip("-").replace("-", "_")
        raise InputError(
            "an option that Beam does not know",
            parameter=f"{parameter}.{name}",
            allowed="an option of Beam, without dashes: https://beam.apache.org/documentation/runners/",
            received=name,
            hint=f"did you mean {bare!r}?" if bare in allowed else suggest(bare, allowed),
        )


def _value(name: str, value: Any, action: argparse.Action, parameter: str) -> Any:
    """A value as Beam's parser takes it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_switch = action.nargs == 0
    repeats = not is_switch and not isinstance(action, argparse._StoreAction)
    if is_switch:
        fits, allowed = isinstance(value, bool), "true or false"
    elif repeats:
        value = value if isinstance(value, list) else [value]
        fits, allowed = all(isinstance(item, (str, int, float)) for item in value), "a text, or a list of texts"
    else:
        fits = isinstance(value, (str, int, float, Mapping)) and not isinstance(value, bool) and value != ""
        allowed = "a text, a number or a dictionary"
    if not fits:
        raise InputError(
            "an option of Beam with a value of another kind",
            parameter=f"{parameter}.{name}",
            allowed=allowed,
            received=f"{type(value).__name__}: {value!r}",
        )
    return dict(value) if isinstance(value, Mapping) else value


def _parse(parser: argparse.ArgumentParser, name: str, value: Any, parameter: str) -> None:
    """Lets Beam's parser look at one option, which would end the process over a wrong one."""
    if isinstance(value, (bool, Mapping)):
        return
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parser.parse_args([f"--{name}={item}" for item in (value if isinstance(value, list) else [value])])
    except (SystemExit, ValueError, argparse.ArgumentError) as error:
        reason = said.getvalue().strip().rpartition(f"--{name}")[2].lstrip(": ") or str(error)
        raise InputError(
            "an option of Beam with a value that is not allowed",
            parameter=f"{parameter}.{name}",
            allowed=reason,
            received=repr(value),
        ) from None
