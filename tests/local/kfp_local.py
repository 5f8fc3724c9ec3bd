"""Runs the local variant of a pipeline by kfp.local itself, one step after another: what our runner is compared with.

    python kfp_local.py JOB.json

The job: `pipeline` (a file), `arguments`, `steps` and `cache` (folders), `result` (the file to write).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(job_file: str) -> None:
    from kfp import components, dsl, local

    job = json.loads(Path(job_file).read_text())
    # kfp.local writes sys.executable for "python3" wherever it stands: in values and paths too.
    sys.executable = "python3"
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=job["steps"],
        enable_caching=True,
        cache_root=job["cache"],
    )
    pipeline = components.load_component_from_file(job["pipeline"])
    try:
        found = pipeline(**job["arguments"]).outputs
    except RuntimeError as error:
        result = {"state": "failed", "error": str(error)}
    else:
        outputs = {name: value.uri if isinstance(value, dsl.Artifact) else value for name, value in found.items()}
        result = {"state": "succeeded", "outputs": outputs}
    Path(job["result"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
