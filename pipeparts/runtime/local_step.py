"""Runs one step of a local run: `python -m pipeparts.runtime.local_step kfp.dsl.executor_main ...`.

The local target puts this in front of KFP's executor. It keeps the step's output in the step's
own folder, records how it went in `step.json`, and ends the step when the run's worker is gone. It imports the
standard library alone, since its own cost is added to every step.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import runpy
import select
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

#: How long a step that is told to stop has for its clean-up.
GRACE_SECONDS = 5.0
#: The file with what the run's steps are given: for a step's id, `timeout_seconds` and `secrets`.
SETTINGS_VARIABLE = "PIPEPARTS_STEP_SETTINGS"

_TIMED_OUT = 124

_LAST_LINES = 40


def main(argv: list[str]) -> int:
    """Runs a module as the step.

    Args:
        argv: The module to run, then its arguments, among them `--executor_input` and its JSON.

    Returns:
        The exit code: 0, 1 for an error, or what the module itself asked for.
    """
    module, *arguments = argv
    executor_input = json.loads(argument(arguments, "--executor_input") or "{}")
    output_file = executor_input.get("outputs", {}).get("outputFile")
    if not output_file:
        raise SystemExit("local_step: there is no --executor_input with an outputFile")
    folder = Path(output_file).parent
    folder.mkdir(parents=True, exist_ok=True)
    end_with_worker()
    _redirect(folder / "log.txt")
    record = _begin(folder)
    signal.signal(signal.SIGTERM, _stop)
    sys.argv = [module, *arguments]
    settings = settings_of(folder.name)
    clock = _Clock(folder, record, settings["timeout_seconds"]) if "timeout_seconds" in settings else None
    code, error = _run(module, settings.get("secrets", {}))
    if clock is not None and clock.stop():
        code, error = _TIMED_OUT, clock.error
    if code == 0:
        _complete_artifacts(executor_input, Path(output_file))
    _finish(folder, record, code, error)
    _remove_program(argument(arguments, "--component_module_path"))
    return code


def settings_of(step: str) -> dict[str, Any]:
    """What a step of this run is given; nothing where no file says so."""
    path = os.environ.get(SETTINGS_VARIABLE)
    found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8")).get(step, {}) if path else {}
    return found


class _Clock:
    """Ends this step when its time is over: gently first, and at last whatever its native code does.

    Attributes:
        error: What the record says then.
    """

    def __init__(self, folder: Path, record: dict[str, Any], seconds: float) -> None:
        from pipeparts.runtime.errors import PipepartsError

        self.error = PipepartsError(
            "the step's time is over",
            parameter="timeout_seconds",
            allowed=f"an end within {seconds:g} s",
            received="no end",
        )
        self._folder, self._record, self._seconds = folder, record, seconds
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._over = False
        # Its thread is not Python's: it works where no other gets the interpreter's lock.
        faulthandler.dump_traceback_later(seconds + 2 * GRACE_SECONDS, exit=True)
        threading.Thread(target=self._watch, name="watch-time", daemon=True).start()

    def stop(self) -> bool:
        """Stops the clock; returns whether the time was over."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the clock's own may be on its way
        faulthandler.cancel_dump_traceback_later()
        self._stopped.set()
        with self._lock:
            return self._over

    def _watch(self) -> None:
        if self._stopped.wait(self._seconds):
            return
        with self._lock:
            if self._stopped.is_set():
                return
            self._over = True
            # Written now: whatever the step does with the signal, the record says why it ended.
            _finish(self._folder, self._record, _TIMED_OUT, self.error)
        os.kill(os.getpid(), signal.SIGTERM)
        if not self._stopped.wait(GRACE_SECONDS):
            os.kill(os.getpid(), signal.SIGKILL)


def _run(module: str, secrets: dict[str, str]) -> tuple[int, BaseException | None]:
    try:
        if secrets:
            from pipeparts.runtime.secrets import read_secret

            # In this process alone: no file and no other step has them.
            os.environ.update({name: read_secret(place, parameter=name) for name, place in secrets.items()})
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        if error.code is None or error.code == 0:
            return 0, None
        return (error.code, error) if isinstance(error.code, int) else (1, error)
    except BaseException as error:
        traceback.print_exc()
        return 1, error
    return 0, None


def argument(arguments: list[str], name: str) -> str | None:
    """What follows a name among a command's arguments."""
    with contextlib.suppress(ValueError, IndexError):
        return arguments[arguments.index(name) + 1]
    return None


def _stop(number: int, frame: FrameType | None) -> None:
    # Once: the same comes again from the thread that sees the worker go, and would end the writing of the record.
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def end_with_worker() -> None:
    """Ends this step when the worker that reads its output is gone, however it went.

    Nothing is sent through the pipe to the worker (the output goes to a file), so the pipe says one thing: an
    error is reported on our end once the reader's end is closed, even by a SIGKILL. In a container the output's
    reader is docker's daemon, which stays; there the standard input is the link, and its end says the same.
    """
    by_input = os.environ.get("PIPEPARTS_STEP_LINK") == "stdin"
    pipe = os.dup(0 if by_input else 1)
    # The worker's standard input is its own link to the command line; no step may read from it.
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.set_inheritable(pipe, False)
    threading.Thread(target=_watch, args=(pipe, by_input), name="watch-worker", daemon=True).start()


def _watch(pipe: int, by_input: bool) -> None:
    poll = select.poll()
    poll.register(pipe, 0)
    if by_input:
        while os.read(pipe, 1024):
            pass
    elif not any(event & select.POLLERR for _, event in poll.poll()):
        return  # not a pipe: started by hand
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    if os.environ.get("PIPEPARTS_RUN_GROUP") == str(os.getpgrp()):
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _redirect(log: Path) -> None:
    # Appended to: a retried step keeps the output of its earlier attempts.
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    faulthandler.enable()


def _begin(folder: Path) -> dict[str, Any]:
    attempt = 1
    with contextlib.suppress(OSError, ValueError):
        attempt = json.loads((folder / "step.json").read_text(encoding="utf-8"))["attempt"] + 1
    record = {"state": "running", "pid": os.getpid(), "started": time.time(), "attempt": attempt}
    _write(folder, record)
    return record


def _finish(folder: Path, record: dict[str, Any], code: int, error: BaseException | None) -> None:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024
    record.update(
        state="succeeded" if code == 0 else "failed",
        exit_code=code,
        finished=time.time(),
        cpu_seconds=round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 3),
        peak_memory_bytes=max(own.ru_maxrss, children.ru_maxrss) * unit,
    )
    if code == 128 + signal.SIGTERM:
        record["state"] = "interrupted"
    elif error is not None:
        record["error"] = _describe(error)
    _write(folder, record)


def _describe(error: BaseException) -> dict[str, Any]:
    """An error as the run's record keeps it: its own text, and where in the user's code it was raised."""
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
    own = hasattr(error, "headline") and hasattr(error, "facts")
    message = str(error.code) if isinstance(error, SystemExit) else str(error)
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        message = f"the step ended itself with exit code {error.code}"
    return {
        "type": type(error).__name__,
        "message": message,
        "pipeparts": own,
        "retryable": bool(getattr(error, "retryable", False)),
        "where": _place(error),
        "traceback": lines[-_LAST_LINES:],
    }


def _place(error: BaseException) -> str | None:
    """The last line of the traceback that is neither Python's, KFP's nor another package's."""
    outside = ("site-packages", "dist-packages", "<frozen", str(Path(os.__file__).parent))
    package = str(Path(__file__).parents[1])
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__
        and (frame.filename.startswith(package) or not any(part in frame.filename for part in outside))
    ]
    if not own:
        return None
    frame = own[-1]
    name = "the component's function" if frame.filename.endswith("ephemeral_component.py") else frame.filename
    line = f": {frame.line}" if frame.line else ""
    return f"{name}, line {frame.lineno}, in {frame.name}{line}"


def _complete_artifacts(executor_input: dict[str, Any], output_file: Path) -> None:
    """Makes the files of output artifacts that the step did not write.

    A step is taken from the cache only where each output artifact exists as a file, and metrics, for one, live in
    the metadata alone.
    """
    written: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        written = json.loads(output_file.read_text(encoding="utf-8")).get("artifacts", {})
    declared = executor_input.get("outputs", {}).get("artifacts", {})
    for artifacts in {**declared, **written}.values():
        for artifact in artifacts.get("artifacts", []):
            path = Path(artifact.get("uri", ""))
            if path.is_absolute() and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()


def _remove_program(path: str | None) -> None:
    """Removes the folder that KFP's command made with `mktemp -d` for the component's source."""
    if path is not None:
        folder = Path(path).parent
        if [item.name for item in folder.iterdir() if item.name != "__pycache__"] == [Path(path).name]:
            shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path, record: dict[str, Any]) -> None:
    partial = folder / f".step.json.{os.getpid()}"
    partial.write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
    partial.replace(folder / "step.json")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
