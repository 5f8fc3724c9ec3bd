"""Measures a contender in a process of its own: CPU seconds, wall seconds, and the most memory that was resident."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import outside
from tests.tfx_image import image

_POLL_SECONDS = 0.01


@dataclasses.dataclass(frozen=True)
class Measured:
    """One run of a contender, from the start of its interpreter to its end.

    Attributes:
        cpu: User and system seconds, of all its threads and children.
        wall: Seconds.
        megabytes: The most memory that was resident.
        cut_off: Whether it was ended at the limit: the other figures are then what it had used by then.
        failed: The last line of its error; empty: none.
        extrapolated_from: The rows that it was really run on, where it was not run on all.
    """

    cpu: float
    wall: float
    megabytes: float
    cut_off: bool = False
    failed: str = ""
    extrapolated_from: int = 0


def measure(
    stage: str,
    contender: str,
    folder: Path,
    *,
    limit_seconds: float,
    limit_megabytes: float,
    command: Sequence[str] | None = None,
) -> Measured:
    """Runs a contender.

    Args:
        stage: The stage's module.
        contender: Its name there.
        folder: The data, as the stage has prepared it.
        limit_seconds: Wall seconds after which it is ended.
        limit_megabytes: Resident memory over which it is ended.
        command: What runs it, where that is not the stage's function.
    """
    command = command or [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks",
        "--run",
        stage,
        contender,
        "--folder",
        str(folder),
    ]
    # Bytecode is compiled once, as an installed package's is.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "DO_NOT_TRACK": "1"}
    if contender.startswith("ours"):
        environment["ARROW_DEFAULT_MEMORY_POOL"] = "jemalloc"  # as steps have it, in the images and here
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, start_new_session=True
    )
    peak, cut_off = 0.0, False
    while True:
        # The group's leader is the child: wait4 tells of it alone, and of the children that it has waited for.
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        wall = time.perf_counter() - started
        if pid:
            break
        peak = max(peak, _peak_megabytes(process.pid))
        if not cut_off and (wall > limit_seconds or peak > limit_megabytes):
            cut_off = True
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stderr is not None
    said = process.stderr.read().decode(errors="replace").strip().splitlines()
    process.stderr.close()
    failed = "" if process.returncode == 0 or cut_off else (said or [f"exit code {process.returncode}"])[-1]
    return Measured(used.ru_utime + used.ru_stime, wall, peak, cut_off, failed)


def measure_outside(
    contender: str, folder: Path, rows: int, *, limit_seconds: float, limit_megabytes: float
) -> Measured:
    """Runs a contender of `benchmarks.outside`; on a part of many rows, from which what all would cost is reckoned.

    Args:
        contender: Its name there.
        folder: The data.
        rows: How many rows there are.
        limit_seconds: As for `measure`.
        limit_megabytes: As for `measure`.
    """

    def run(count: int) -> Measured:
        given = [contender, str(folder), str(count)]
        command = [str(outside.python(folder.parent)), "-W", "ignore", outside.__file__, *given]
        limits = {"limit_seconds": limit_seconds, "limit_megabytes": limit_megabytes}
        return measure("", contender, folder, command=command, **limits)

    return _reckoned(run, rows)


def measure_in_tfx_image(
    contender: str, folder: Path, rows: int, *, limit_seconds: float, limit_megabytes: float
) -> Measured:
    """The same of a contender of `benchmarks.tfx_stages`, in the image of TFX's libraries."""

    def run(count: int) -> Measured:
        folders = ["--volume", f"{folder.resolve()}:/data", "--volume", f"{Path(__file__).parent.resolve()}:/b:ro"]
        limits = ["--rm", "--network", "none", "--tmpfs", "/tmp:exec", "--memory", f"{int(limit_megabytes)}m"]
        user = ["--user", f"{os.getuid()}:{os.getgid()}", "--entrypoint", "python"]
        given = ["-W", "ignore", "/b/tfx_stages.py", contender, "/data", str(count)]
        command = [*shlex.split(os.environ.get("DOCKER", "docker")), "run", *limits, *folders, *user, str(image())]
        try:
            ended = subprocess.run(
                [*command, *given], capture_output=True, text=True, check=False, timeout=limit_seconds
            )
        except subprocess.TimeoutExpired:
            return Measured(0.0, limit_seconds, 0.0, failed=f"not done after {limit_seconds:.0f} s")
        if ended.returncode:
            return Measured(0.0, 0.0, 0.0, failed=(ended.stderr.strip().splitlines() or ["it ended badly"])[-1])
        return Measured(**json.loads(ended.stdout.strip().splitlines()[-1]))

    return _reckoned(run, rows)


def _reckoned(run: Callable[[int], Measured], rows: int) -> Measured:
    if rows <= outside.PART:
        return run(rows)
    few, part = run(outside.FEW), run(outside.PART)
    for each in (few, part):
        if each.cut_off or each.failed:
            return each
    if part.cpu - few.cpu < 1.5:
        return run(rows)  # its start hides what the rows cost, and so all are cheap enough to run
    more = (rows - outside.FEW) / (outside.PART - outside.FEW)
    cpu, wall = few.cpu + more * (part.cpu - few.cpu), few.wall + more * (part.wall - few.wall)
    return Measured(cpu, wall, part.megabytes, extrapolated_from=outside.PART)


def median(runs: list[Measured]) -> Measured:
    """The medians of a contender's runs; where one was cut off or failed, that one."""
    for run in runs:
        if run.cut_off or run.failed:
            return run
    middle = (statistics.median(getattr(run, name) for run in runs) for name in ("cpu", "wall", "megabytes"))
    return Measured(*middle, extrapolated_from=runs[0].extrapolated_from)


def as_dict(measured: Measured) -> dict[str, object]:
    """For the file of results; figures rounded to what they are worth."""
    return {
        "cpu": round(measured.cpu, 2),
        "wall": round(measured.wall, 2),
        "megabytes": round(measured.megabytes),
        "cut_off": measured.cut_off,
        "failed": measured.failed,
        "extrapolated_from": measured.extrapolated_from,
    }


def machine() -> dict[str, str]:
    """What it was measured on."""
    processor = ""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
    memory = int(Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]) // 1_000_000
    return {"processor": processor, "cores": str(os.cpu_count()), "memory": f"{memory} GB"}


def versions(names: list[str]) -> dict[str, str]:
    """The releases of what was measured."""
    from importlib import metadata

    return {name: metadata.version(name) for name in names}


def read_results(path: Path) -> dict[str, dict[str, object]]:
    """The results so far; none where there is no file."""
    found: dict[str, dict[str, object]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _peak_megabytes(pid: int) -> float:
    """`VmHWM` of the process itself: `ru_maxrss` of a child begins at its parent's peak."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    found = text.partition("VmHWM:")[2].split()
    return int(found[0]) / 1024 if found else 0.0
