"""The work of `profile_table`."""

from __future__ import annotations

import logging
import os

from pipeparts.components.data_validation.profile_table.page import build_page
from pipeparts.runtime.errors import InputError
from pipeparts.runtime.profiles import Profile, write_profile
from pipeparts.runtime.profiling import profile_of
from pipeparts.runtime.sketches import BUCKETS
from pipeparts.runtime.tables import Table

logger = logging.getLogger(__name__)

_BINS = (16, BUCKETS)
_TOP = (1, 10_000)


def profile_table(
    *,
    table_path: str | os.PathLike[str],
    profile_path: str | os.PathLike[str],
    page_path: str | os.PathLike[str],
    bins: int,
    top: int,
) -> Profile:
    """Profiles a table and draws the page.

    Args:
        table_path: The table's folder.
        profile_path: Where the profile (JSON) goes.
        page_path: Where the HTML page goes.
        bins: The most buckets of a histogram in the profile.
        top: The most values that are listed with their counts.

    Returns:
        The profile.

    Raises:
        InputError: Where `bins` or `top` is out of its range.
        ContractError: Where the table is damaged or not whole.
    """
    for name, value, (least, most) in (("bins", bins, _BINS), ("top", top, _TOP)):
        if not least <= value <= most:
            raise InputError(
                f"`{name}` is out of its range", parameter=name, allowed=f"{least} to {most:,}", received=value
            )
    table = Table(table_path)
    profile = profile_of(table, bins=bins, top=top)
    write_profile(profile_path, profile)
    build_page(profile).write(page_path)
    logger.info("profiled %s rows of %d columns", f"{profile.rows:,}", len(profile.columns))
    return profile
