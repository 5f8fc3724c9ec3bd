"""A pipeline of components that were loaded from elsewhere; kfp reads no postponed annotations."""

from typing import Any

from kfp import dsl


def compose(load: Any, again: Any) -> Any:
    @dsl.pipeline(name="composed")
    def composed(source: str) -> int:
        first = load(source=source, rows=3)
        return again(source=source, rows=first.output).output

    return composed
