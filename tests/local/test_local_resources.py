"""Which steps begin when: places by cores and by memory."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from pipeparts.targets import local_resources
from pipeparts.targets.local_resources import Place, Places, cores, free_memory, used_memory


def run_in_order(places: Places, sizes: dict[str, int], *, free: list[int | None] | None = None) -> list[str]:
    """Lets steps in that need so much memory, ends them in the order that they began, and says who began when."""
    begun: list[str] = []
    order: list[asyncio.Event] = []

    async def step(name: str, size: int) -> None:
        async with places.taken(name, size):
            begun.append(name)
            ended = asyncio.Event()
            order.append(ended)
            await ended.wait()

    async def main() -> None:
        steps = [asyncio.create_task(step(name, size)) for name, size in sizes.items()]
        while not all(step.done() for step in steps):
            for _ in range(5):
                await asyncio.sleep(0)
            begun.append("|")
            if order:
                order.pop(0).set()

    asyncio.run(asyncio.wait_for(main(), 60))
    return begun


def test_as_many_as_there_are_places() -> None:
    begun = run_in_order(Places(2, free=lambda: None), dict.fromkeys("abc", 1))
    assert "".join(begun).startswith("ab|c|")


def test_one_runs_however_little_memory_there_is() -> None:
    begun = run_in_order(Places(8, free=lambda: 0), dict.fromkeys("abc", 10))
    assert "".join(begun).startswith("a|b|c|")


def test_who_needs_less_passes_who_has_to_wait() -> None:
    # 100 are free. What runs has taken nothing yet, so all of it is still promised.
    begun = run_in_order(Places(3, free=lambda: 100), {"a": 60, "b": 60, "c": 30, "d": 30})
    assert "".join(begun).startswith("ac|")


def test_what_a_step_holds_already_is_not_promised_twice() -> None:
    held = {1: 40}
    places = Places(2, free=lambda: 50, used=lambda process: held.get(process, 0))

    async def main() -> bool:
        async with places.taken("a", 60) as place:
            place.process = 1
            # 20 more are promised to it, so 30 are left.
            return places._fits(Place("b", 30)) and not places._fits(Place("c", 31))

    assert asyncio.run(main())


def test_memory_that_comes_free_without_a_word_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_resources, "_LOOK_SECONDS", 0.01)
    free = [0]
    places = Places(2, free=lambda: free[0])

    async def main() -> None:
        async with places.taken("a", 10):
            waiting = asyncio.ensure_future(places.taken("b", 10).__aenter__())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            free[0] = 1000
            await asyncio.wait_for(waiting, 60)

    asyncio.run(main())


def test_a_step_that_gives_up_waiting_leaves_no_trace() -> None:
    places = Places(1, free=lambda: None)

    async def main() -> None:
        async with places.taken("a", 1):
            waiting = asyncio.ensure_future(places.taken("b", 1).__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        async with places.taken("c", 1):
            pass

    asyncio.run(asyncio.wait_for(main(), 60))


def test_this_machine() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
    free = free_memory()
    assert free is not None
    assert free > 0
    assert used_memory(os.getpid()) > 1e6
    assert used_memory(2**22 + 1) == 0


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of files: /proc and /sys/fs/cgroup below one folder."""
    monkeypatch.setattr(local_resources, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(local_resources, "_CGROUPS", tmp_path / "cgroup")
    write(tmp_path / "proc" / "meminfo", "MemTotal: 99 kB\nMemAvailable:   8000 kB\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_a_control_group(machine: Path) -> None:
    assert free_memory() == 8_000 * 1024


def test_the_limit_of_a_control_group(machine: Path) -> None:
    write(machine / "proc" / "self" / "cgroup", "0::/jobs/one\n")
    group = machine / "cgroup" / "jobs"
    write(group / "one" / "memory.max", "max\n")
    write(group / "one" / "memory.current", "1\n")
    write(group / "memory.max", "5000000\n")
    write(group / "memory.current", "3000000\n")
    write(group / "memory.stat", "anon 1\ninactive_file 500000\n")
    assert free_memory() == 2_500_000
    write(group / "cpu.max", "150000 100000\n")
    assert cores() == 1
    write(group / "cpu.max", "max 100000\n")
    assert cores() >= 1


def test_the_limit_of_a_control_group_of_the_first_version(machine: Path) -> None:
    write(machine / "proc" / "self" / "cgroup", "3:cpu,cpuacct:/jobs\n2:memory:/jobs\n")
    group = machine / "cgroup" / "memory" / "jobs"
    write(group / "memory.limit_in_bytes", "4000000")
    write(group / "memory.usage_in_bytes", "5000000")
    assert free_memory() == 0
    write(machine / "cgroup" / "cpu" / "jobs" / "cpu.cfs_quota_us", "-1")
    write(machine / "cgroup" / "cpu" / "jobs" / "cpu.cfs_period_us", "100000")
    assert cores() >= 1
