"""Where the table is for Beam's workers, and where they work."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from pipeparts.runtime.beam import is_local, runner_of
from pipeparts.runtime.errors import InputError


class Places:
    """A table as the workers read it, and a folder for what is made on the way.

    Args:
        table: The table's folder or URI.
        work: The folder, which every worker and this step write to.
        is_remote: Whether the workers are elsewhere, without this step's disk.
    """

    def __init__(self, table: str, work: str, *, is_remote: bool) -> None:
        self.table = table.rstrip("/")
        self.work = work
        self.is_remote = is_remote

    @property
    def table_pattern(self) -> str:
        """The table's part files."""
        return f"{self.table}/part-*.parquet"

    def folder(self, name: str) -> str:
        """A folder for one purpose; it need not be there yet."""
        return os.path.join(self.work, name)


@contextlib.contextmanager
def open_places(
    table_path: str | os.PathLike[str],
    table_uri: str,
    beam_options: Mapping[str, Any] | None,
    temp_location: str | None,
) -> Iterator[Places]:
    """The places for a runner; the folder is removed when the block ends.

    Args:
        table_path: The table's folder in this step.
        table_uri: The same, as a runner elsewhere reads it.
        beam_options: As the step got them.
        temp_location: Beam's own folder for temporary files, if the options name one.

    Raises:
        InputError: For a runner elsewhere without a folder that it shares with this step.
    """
    if is_local(beam_options):
        with tempfile.TemporaryDirectory() as work:
            yield Places(str(table_path), work, is_remote=False)
        return
    runner = runner_of(beam_options)
    if not temp_location or (runner == "DataflowRunner" and not table_uri.startswith("gs://")):
        raise InputError(
            f"{runner} cannot read and write what this step does",
            parameter="beam_options.temp_location" if not temp_location else "beam_options.runner",
            allowed="a temp_location and a table that the workers reach too, such as gs://...",
            received=table_uri if temp_location else "no temp_location",
        )
    import tensorflow as tf

    work = f"{temp_location.rstrip('/')}/transform-{uuid.uuid4().hex}"
    try:
        yield Places(table_uri, work, is_remote=True)
    finally:
        if tf.io.gfile.exists(work):
            tf.io.gfile.rmtree(work)
