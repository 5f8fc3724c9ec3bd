"""What every target gives back, and what the remote ones share."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pipeparts import compiling
from pipeparts.errors import InputError, ServiceError, suggest
from pipeparts.schedules import Schedule, names_window
from pipeparts.submission import data_versions

if TYPE_CHECKING:
    from pipeparts.linting.findings import Finding

logger = logging.getLogger(__name__)

RunState = Literal["running", "succeeded", "failed", "interrupted"]

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+@-]{0,127}")
#: A service may be away for a moment while a run that takes hours is waited for.
_MISSED_LOOKS = 10
#: The pipeline that stands between a platform's scheduler and one whose parameters differ from run to run.
RUN_SCHEDULED = "run-scheduled"
METRICS_TYPE = "system.Metrics"
#: What a platform is asked, where more is to be said of a failure than that it failed.
LOOK_AT_RUN, START_RUN = "look at the run", "start the run"


@dataclasses.dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        run_id: The run's name; its folder is called so.
        state: How it ended.
        folder: The run's folder, with `run.json`, the logs and the artifacts.
        report: The HTML report, where one could be written.
        outputs: The pipeline's own outputs: a value, or an artifact's path.
        record: All of `run.json`.
        new: Whether it ran now; false for a run of the same key that had succeeded before.
    """

    run_id: str
    state: RunState
    folder: Path
    report: Path | None
    outputs: dict[str, Any]
    record: dict[str, Any]
    new: bool = True


@dataclasses.dataclass(frozen=True)
class TaskStatus:
    """How a task of a run stands.

    Attributes:
        name: Its name in the graph.
        state: queued, running, succeeded, cached, failed, skipped, not_run or interrupted.
        started: When it began, ISO 8601; empty: not yet.
        ended: When it ended; empty: not yet.
        error: Why it failed, as far as the platform says.
        link: Its log or its page; empty where there is none.
        id: What tells it from another task of its name: in a loop there is one for each iteration.
    """

    name: str
    state: str
    started: str = ""
    ended: str = ""
    error: str = ""
    link: str = ""
    id: str = ""


@dataclasses.dataclass(frozen=True)
class RemoteRun:
    """A run on a platform.

    Attributes:
        platform: "local", "kubeflow" or "vertex".
        run_id: The platform's name for it.
        pipeline: The pipeline's name.
        key: What it runs once for.
        state: How it stands.
        link: Its page in the console, or its report; empty where there is no such address.
        error: Why it failed, as far as the platform says.
        new: Whether this call started it; false for one that was there.
        started: When it was made, ISO 8601; empty where the platform does not say.
        ended: When it ended; empty: not yet.
        tasks: How its tasks stand, in the order in which they began.
    """

    platform: str
    run_id: str
    pipeline: str
    key: str
    state: RunState
    link: str = ""
    error: str = ""
    new: bool = True
    started: str = ""
    ended: str = ""
    tasks: tuple[TaskStatus, ...] = ()


@dataclasses.dataclass(frozen=True)
class Output:
    """What a task of a run gave.

    Attributes:
        task: The task's name in the graph; empty: the pipeline's own output.
        name: The output's name.
        value: A parameter's value, or an artifact's URI.
        type: An artifact's type, as "system.Dataset"; empty for a parameter.
        metadata: What the step said of an artifact.
    """

    task: str
    name: str
    value: Any
    type: str = ""
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class PlannedSchedule:
    """What is to run when.

    Attributes:
        name: The schedule's name: there is one of it on a platform.
        spec: The compiled pipeline.
        arguments: Its parameters; a text may name the window, as `{start:%Y-%m}`.
        schedule: When.
        paused: Whether it waits to be resumed.
    """

    name: str
    spec: compiling.Spec
    arguments: Mapping[str, Any]
    schedule: Schedule
    paused: bool = False

    def digest(self, *sent: Any) -> str:
        """The same for the same times and the same of what is sent: a changed image is a changed schedule.

        Args:
            sent: The documents, the parameters, and what else the configuration adds.
        """
        said = [self.schedule.model_dump(), *sent]
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class RemoteSchedule:
    """A schedule on a platform.

    Attributes:
        platform: "local", "kubeflow" or "vertex".
        name: Its name.
        schedule_id: The platform's name for it.
        pipeline: The pipeline's name; empty where the platform does not say.
        cron: When it runs: five fields of cron.
        time_zone: Of those fields.
        state: "active", "paused" or "ended".
        next_run: When it runs next, ISO 8601; empty where nobody knows.
        link: Its page in the console; empty where there is none.
        change: What this call did: "created", "replaced", "unchanged", "paused", "resumed", "deleted"; empty: nothing.
    """

    platform: str
    name: str
    schedule_id: str
    pipeline: str
    cron: str
    time_zone: str
    state: str
    next_run: str = ""
    link: str = ""
    change: str = ""


class Target(abc.ABC):
    """A platform that pipelines run on: the same words for each.

    Every method raises InputError for what no retry mends (a wrong name, a wrong setting, access that is denied), and
    ServiceError where the platform does not answer or refuses for now.
    """

    platform: ClassVar[str]

    @abc.abstractmethod
    def step_settings(self) -> dict[str, Any]:
        """The settings with which a step that runs here submits a pipeline here; no secrets, and no address."""

    @abc.abstractmethod
    def compile(self, spec: compiling.Spec) -> list[compiling.Spec]:
        """The YAML documents that would be submitted: images and settings written into the compiled pipeline."""

    def check(self, spec: compiling.Spec, *, ignore: Collection[str] = ()) -> list[Finding]:
        """What of a pipeline would not run here, as this target compiles it; see `pipeparts lint`."""
        from pipeparts.linting.document import Document
        from pipeparts.linting.engine import lint

        documents = self.compile(spec)
        name = str(spec["pipelineInfo"]["name"])
        return lint(Document(compiling.to_yaml(*documents), name), targets=[self.platform], ignore=ignore)  # type: ignore[list-item]

    @abc.abstractmethod
    def submit(self, spec: compiling.Spec, arguments: Mapping[str, Any], *, key: str) -> RemoteRun:
        """Starts a run for a key, unless there is one that goes on or has succeeded.

        Args:
            spec: The compiled pipeline.
            arguments: Its parameters.
            key: What the run is for.
        """

    @abc.abstractmethod
    def status(self, run_id: str) -> RemoteRun:
        """How a run stands, with its tasks."""

    @abc.abstractmethod
    def wait(self, run: RemoteRun, watch: Callable[[RemoteRun], None] | None = None) -> RemoteRun:
        """Waits for a run's end.

        Args:
            run: The run, as `submit` or `status` gave it.
            watch: Called with the run at each look.
        """

    @abc.abstractmethod
    def cancel(self, run_id: str) -> RemoteRun:
        """Asks a run to stop; one that has ended stays as it is."""

    @abc.abstractmethod
    def outputs(self, run_id: str) -> list[Output]:
        """What the tasks of a run gave, as far as they have ended."""

    @abc.abstractmethod
    def runs(self, *, limit: int = 20) -> list[RemoteRun]:
        """The newest runs, without their tasks."""

    @abc.abstractmethod
    def schedule(self, planned: PlannedSchedule) -> RemoteSchedule:
        """Makes a schedule, or replaces the one of its name where anything has changed."""

    @abc.abstractmethod
    def schedules(self) -> list[RemoteSchedule]:
        """The schedules that this library has made, by name."""

    @abc.abstractmethod
    def pause(self, name: str) -> RemoteSchedule:
        """Lets a schedule start nothing until it is resumed."""

    @abc.abstractmethod
    def resume(self, name: str) -> RemoteSchedule:
        """Lets a paused schedule go on."""

    @abc.abstractmethod
    def unschedule(self, name: str) -> RemoteSchedule:
        """Deletes a schedule; the runs that it has started stay."""


def choose_schedule(name: str, found: Iterable[RemoteSchedule], *, where: str) -> RemoteSchedule:
    """The schedule of a name.

    Raises:
        InputError: Where there is none; with the close match.
    """
    known = {each.name: each for each in found}
    if name in known:
        return known[name]
    raise InputError(
        "there is no schedule of this name",
        parameter="name",
        where=where,
        allowed=sorted(known) or "no schedule is there",
        received=name,
        hint=suggest(name, known),
    )


def require_schedulable(planned: PlannedSchedule, time_zone: str | None = None) -> PlannedSchedule:
    """Refuses what a platform's own scheduler cannot do: it gives every run the same parameters.

    Args:
        planned: The schedule.
        time_zone: The one time zone that the platform's scheduler knows; None: it knows all.

    Returns:
        The schedule, its cron with the fields that every platform reads alike.

    Raises:
        InputError: For parameters that name the window, for versions of data that would stay as they are now, for
            another time zone, and for fields of cron that are not everybody's.
    """
    if planned.spec["pipelineInfo"]["name"] != RUN_SCHEDULED:
        _require_same_every_time(planned)
    if time_zone is not None and planned.schedule.time_zone != time_zone:
        raise InputError(
            "this platform's scheduler has another time zone",
            parameter="schedule.time_zone",
            allowed=f"{time_zone} (the setting schedule_time_zone says what the installation was set to)",
            received=planned.schedule.time_zone,
        )
    schedule = planned.schedule.model_copy(update={"cron": planned.schedule.portable_cron})
    return dataclasses.replace(planned, schedule=schedule)


def _require_same_every_time(planned: PlannedSchedule) -> None:
    through = (
        "schedule `run_scheduled` with this file (`pipeparts schedule create` does, without --plain), or call "
        "`pipeparts submit --params FILE --once-per-window` from a scheduler of your own"
    )
    found = next((name for name, value in planned.arguments.items() if names_window(value)), None)
    if found is not None:
        raise InputError(
            "this platform's scheduler gives every run the same parameters, and this one names the window",
            parameter=found,
            allowed="parameters without {start}, {end} or {previous_start}",
            received=planned.arguments[found],
            hint=through,
        )
    frozen = data_versions(planned.spec, planned.arguments)
    if frozen:
        raise InputError(
            "the data's version would stay what it is now: every run would take the first one's table from the cache",
            parameter=frozen[0],
            allowed="a version of your own that each run may keep, or a run for each time that looks at the data",
            received="nothing: it is filled in when a run is submitted",
            hint=through,
        )


def no_such_run(headline: str, platform: str, *, where: str, received: str) -> InputError:
    """What is said where a platform has no run of a name."""
    hint = f"`pipeparts runs --target {platform}` lists the newest"
    return InputError(f"{headline}: it is not there", parameter="run", where=where, received=received, hint=hint)


def hint_after(what: str, platform: str) -> str | None:
    """What to do where a platform has not answered, or not as it should; None where it is plain: try again."""
    if what != START_RUN:
        return None
    return (
        "run the same command again: with `--once KEY` it finds what was started all the same; without, look at "
        f"`pipeparts runs --target {platform}` first"
    )


def check_key(key: str) -> None:
    """Refuses what cannot be the key of a run.

    Raises:
        InputError: For a text that is too long, or has other characters.
    """
    if not _KEY.fullmatch(key):
        raise InputError(
            "a key that no run can have",
            parameter="key",
            allowed="1 to 128 letters, digits and . _ = + @ -, a letter or digit first",
            received=key,
        )


def require_images(spec: compiling.Spec, *, registry: str, images: dict[str, str]) -> compiling.Spec:
    """A spec with an image for every family.

    Args:
        spec: The compiled pipeline.
        registry: Where the images of this release are; empty: `images` names them all.
        images: Family to image, over those of the registry.

    Raises:
        InputError: Where a family is left without an image.
    """
    known = {**(compiling.default_images(spec, registry=registry) if registry else {}), **images}
    resolved = compiling.resolve_images(spec, known) if known else spec
    if families := compiling.image_families(resolved):
        raise InputError(
            "the pipeline names image families, and no images are set for them",
            parameter="registry",
            allowed="the registry with this release's images, or an image for each family under `images`",
            received=f"no image for: {', '.join(families)}",
        )
    return resolved


def wait_for_end(
    run: RemoteRun,
    look: Callable[[], RemoteRun],
    *,
    poll_seconds: float,
    timeout_seconds: float,
    watch: Callable[[RemoteRun], None] | None = None,
) -> RemoteRun:
    """Looks at a run until it has ended.

    Args:
        run: The run as it stands.
        look: Asks the platform.
        poll_seconds: The longest pause between two looks; the first ones are shorter.
        timeout_seconds: How long at most; the run itself goes on.
        watch: Called with the run at each look.

    Raises:
        ServiceError: Where the time is over, or the platform does not answer for long.
    """
    deadline = time.monotonic() + timeout_seconds
    pause, missed = min(1.0, poll_seconds), 0
    while run.state == "running":
        if time.monotonic() >= deadline:
            raise ServiceError(
                "the run has not ended in time; it goes on",
                where=run.link or run.run_id,
                parameter="wait_seconds",
                allowed=f"an end within {timeout_seconds:,.0f} seconds",
                received=f"run {run.run_id} is still running",
                hint="the same command with the same key waits for the same run",
            )
        time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
        pause = min(2 * pause, poll_seconds)
        try:
            run = look()
            missed = 0
            if watch is not None:
                watch(run)
        except ServiceError as error:
            missed += 1
            if missed == _MISSED_LOOKS:
                raise
            logger.warning("cannot see how run %s stands, trying again: %s", run.run_id, error.headline)
    return run
