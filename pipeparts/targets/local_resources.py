"""How many steps this machine can run side by side: its cores, its memory, and what each step needs of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeparts.runtime.files import write_json

logger = logging.getLogger(__name__)

#: What a step is expected to need that has not run here before.
UNKNOWN_STEP_BYTES = 1 << 30
_LOOK_SECONDS = 0.5
_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


def cores() -> int:
    """The cores that this process may use: those it is pinned to, within the control group's quota; 1 or more."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _groups("cpu"):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        if not quota:
            quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            count = min(count, int(quota) // int(period))
    return max(count, 1)


def free_memory() -> int | None:
    """The bytes that a new process could have, within the control group's limit; None where nobody can tell."""
    known = re.search(r"^MemAvailable:\s+(\d+) kB", _text(_PROC / "meminfo"), re.MULTILINE)
    found = [int(known[1]) * 1024] if known else []
    for group in _groups("memory"):
        limit = _text(group / "memory.max") or _text(group / "memory.limit_in_bytes")
        used = _text(group / "memory.current") or _text(group / "memory.usage_in_bytes")
        if limit.isdigit() and used.isdigit():
            # Files in the cache count as used, and make room when they have to.
            cached = re.search(r"^(?:total_)?inactive_file (\d+)", _text(group / "memory.stat"), re.MULTILINE)
            found.append(int(limit) - int(used) + (int(cached[1]) if cached else 0))
    if not found:
        with contextlib.suppress(ImportError):
            import psutil  # type: ignore[import-untyped,unused-ignore]

            return int(psutil.virtual_memory().available)
        return None
    return max(min(found), 0)


def used_memory(process: int) -> int:
    """The bytes that a process and its children hold; 0 where nobody can tell."""
    pages = _text(_PROC / str(process) / "statm").split()
    total = int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 else 0
    children = _text(_PROC / str(process) / "task" / str(process) / "children").split()
    return total + sum(used_memory(int(child)) for child in children)


def _groups(controller: str) -> Iterator[Path]:
    """The control groups that this process is in, from its own up to the root; of both versions."""
    for line in _text(_PROC / "self" / "cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = _CGROUPS / controller if controllers else _CGROUPS
        group = top / name.lstrip("/")
        while group.is_relative_to(top):
            yield group
            if group == top:
                break
            group = group.parent


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


@dataclasses.dataclass(eq=False)
class Place:
    """A step's place among those that run.

    Attributes:
        name: The step's.
        bytes: The memory that it is expected to need.
        process: Its process, as soon as there is one.
        told: Whether it was said that it waits for memory.
    """

    name: str
    bytes: int
    process: int | None = None
    told: bool = False


class Places:
    """Lets steps begin as cores and memory allow; at least one always runs.

    Args:
        steps: How many may run at a time.
        free: Tells the memory that is free, in bytes.
        used: Tells the memory that a process holds, in bytes.
    """

    def __init__(
        self,
        steps: int,
        *,
        free: Callable[[], int | None] = free_memory,
        used: Callable[[int], int] = used_memory,
    ) -> None:
        self._steps = steps
        self._free = free
        self._used = used
        self._running: set[Place] = set()
        self._waiting: dict[Place, asyncio.Future[None]] = {}
        self._next_look: asyncio.TimerHandle | None = None

    @contextlib.asynccontextmanager
    async def taken(self, name: str, expected: int) -> AsyncIterator[Place]:
        """Waits for a place, and holds it while the block runs.

        Args:
            name: The step's.
            expected: The memory that it is expected to need, in bytes.
        """
        place = Place(name, expected)
        given = self._waiting[place] = asyncio.get_running_loop().create_future()
        try:
            self._let_in()
            await given
            yield place
        finally:
            self._waiting.pop(place, None)
            self._running.discard(place)
            self._let_in()

    def _let_in(self) -> None:
        """Gives places away, to those that have waited longest first; who needs too much memory lets others by."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        for place, given in list(self._waiting.items()):
            if len(self._running) >= self._steps:
                return
            if not self._running or self._fits(place):
                del self._waiting[place]
                self._running.add(place)
                given.set_result(None)
        if self._waiting:
            # Memory comes free without a word.
            self._next_look = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._let_in)

    def _fits(self, place: Place) -> bool:
        free = self._free()
        if free is None:
            return True
        # What those that run will still take is not free, though it looks so.
        promised = sum(max(other.bytes - self._held(other), 0) for other in self._running)
        if free - promised >= place.bytes:
            return True
        if not place.told:
            place.told = True
            needs, has, others = (f"{size / 1e6:,.0f} MB" for size in (place.bytes, free, promised))
            logger.info(
                "%s waits for memory: it needs %s; of the %s free, others take %s", place.name, needs, has, others
            )
        return False

    def _held(self, place: Place) -> int:
        return self._used(place.process) if place.process is not None else 0


def expected_memory(root: Path, pipeline: str) -> dict[str, int]:
    """The peak memory of a pipeline's steps when they last ran under a root folder, in bytes, by their ids."""
    try:
        kept = json.loads(_memory_file(root, pipeline).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    items = kept.items() if isinstance(kept, dict) else ()
    return {name: value for name, value in items if isinstance(value, int) and not isinstance(value, bool)}


def keep_peaks(root: Path, record: Mapping[str, Any]) -> None:
    """Keeps what the steps of a run needed, for `expected_memory`; one that did not get to its end may need more."""
    peaks: dict[str, int] = {}
    for task in record["tasks"]:
        for part in task.get("iterations") or [task]:
            if part["state"] == "succeeded" and part["peak_memory_bytes"]:
                peaks[task["id"]] = max(part["peak_memory_bytes"], peaks.get(task["id"], 0))
    if peaks:
        known = expected_memory(root, record["pipeline"])
        write_json(_memory_file(root, record["pipeline"]), {**known, **peaks})


def _memory_file(root: Path, pipeline: str) -> Path:
    return root / "cache" / "memory" / f"{pipeline}.json"
