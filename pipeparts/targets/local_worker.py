"""The process in which kfp.local runs a pipeline: `python -m pipeparts.targets.local_worker RUN_FOLDER`.

What kfp.local says in its log becomes events in `events.jsonl`, a line each; how it ended goes to `result.json`.
Both are read by the process that started this one.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from pipeparts.runtime.files import write_json

#: What kfp.local logs where it could not decide a condition or a loop; it goes on as if the answer were no.
_UNDECIDED = re.compile(
    r"^(Could not resolve |Condition evaluation failed |Unknown items type |Unknown iterator type |"
    r"Failed to get artifact iterator items|Failed to apply expression selector|"
    r"Failed to evaluate parameter expression|"
    r'Cannot parse JSON from |Field ")'
)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_FINISHED = re.compile(r"^Task '(?P<task>.*)' finished with status (?P<status>SUCCESS|FAILURE)$")


def main(argv: list[str]) -> int:
    """Runs the job that is described in the run's folder.

    Args:
        argv: The run's folder, with `job.json` in it.

    Returns:
        0 where the pipeline succeeded, 1 where not.
    """
    folder = Path(argv[0])
    _end_with_parent()
    os.environ["PIPEPARTS_RUN_GROUP"] = str(os.getpgrp())
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    events = EventFilter(folder / "events.jsonl")
    # kfp.local logs through the root logger, some of it outside the context in which it lowers the level itself.
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s - %(levelname)s - %(message)s")
    logging.getLogger().addFilter(events)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        outputs = _run(job)
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        write_json(folder / "result.json", {"state": "failed", "error": f"{type(error).__name__}: {error}"})
        return 1
    write_json(folder / "result.json", {"state": "succeeded", "outputs": outputs})
    return 0


def _run(job: dict[str, Any]) -> dict[str, Any]:
    import yaml
    from kfp import components, dsl, local

    # kfp reads YAML with the parser in pure Python, ten times slower than the one in C beside it.
    yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    # kfp.local writes sys.executable for the text "python3" wherever it stands in a step's command, the arguments'
    # values and the artifacts' paths among it. Our commands name no python3, so this leaves them as they are.
    sys.executable = "python3"
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=job["steps"],
        workspace_root=job["workspace"],
        enable_caching=job["cache"] is not None,
        cache_root=job["cache"],
    )
    pipeline = components.load_component_from_file(job["pipeline"])
    task = pipeline(**job["arguments"])
    return {
        name: value.uri if isinstance(value, dsl.Artifact) else value
        for name, value in task.outputs.items()
        if not isinstance(value, list)
    }


class EventFilter(logging.Filter):
    """Turns kfp.local's log records into events, and lets every record pass."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Writes an event where the record is one; always true."""
        event = read_event(_COLOURS.sub("", record.getMessage()))
        if event is not None:
            event.update(time=record.created, **_context(sys._getframe(1)))
            with self._lock:
                self._file.write(json.dumps(event, default=str) + "\n")
                self._file.flush()
        return True


def read_event(message: str) -> dict[str, Any] | None:
    """The event that a line of kfp.local's log stands for; None for most lines."""
    if message.startswith("Executing task "):
        return {"event": "started"}
    if finished := _FINISHED.match(message):
        return {"event": "succeeded" if finished["status"] == "SUCCESS" else "failed"}
    if message.startswith("Task ") and " cache hit (key=" in message:
        return {"event": "cached"}
    if message.startswith("Task ") and ". Retrying in " in message:
        return {"event": "retrying", "message": message}
    if message.startswith("Skipping conditional task "):
        return {"event": "skipped"}
    if message.startswith("Skipping task ") and ": upstream task(s) " in message:
        return {"event": "not_run"}
    if message.startswith("Task ") and " failed with exception: " in message:
        return {"event": "error", "message": message.partition(" failed with exception: ")[2]}
    if _UNDECIDED.match(message):
        return {"event": "undecided", "message": message}
    return None


def _context(frame: FrameType | None) -> dict[str, Any]:
    """Which task a log record is about, from the calls that it was logged in.

    The text alone names a task without the loop's iteration or the sub-pipeline that it is in.
    """
    names: dict[str, Any] = {}
    while frame is not None:
        function, values = frame.f_code.co_name, frame.f_locals
        if function == "execute_single_task":
            names.setdefault("task", values.get("component_name"))
            names.setdefault("key", values.get("cache_key"))
            names.setdefault("resource", values.get("pipeline_resource_name"))
        elif function in ("run_enhanced_dag", "run_dag"):
            if "task_spec" in values:
                names.setdefault("task", values["task_spec"].component_ref.name)
            names.setdefault("resource", values.get("pipeline_resource_name"))
            break
        frame = frame.f_back
    names["task"] = str(names.get("task") or "").removeprefix("comp-")
    return names


def _end_with_parent() -> None:
    """Ends this process and its steps when the process that started it is gone.

    Standard input is a pipe that the parent holds open and never writes to: its end is the parent's.
    """
    link = os.dup(0)
    os.set_inheritable(link, False)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_watch, args=(link,), name="watch-parent", daemon=True).start()


def _watch(link: int) -> None:
    while os.read(link, 1024):
        pass
    # The steps clean up after themselves on SIGTERM, and see to their own end when this process is gone.
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
