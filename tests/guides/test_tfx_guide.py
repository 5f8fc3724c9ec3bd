"""The guide to TFX: its pipeline compiles, and what it calls has the parameters that it is given."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from kfp import compiler

from pipeparts import catalog

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "tfx.md").read_text(), re.DOTALL)


def test_the_pipeline_beside_tfx_compiles(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if "@dsl.pipeline" in block]
    file = tmp_path / "beside_tfx.py"
    file.write_text(block)
    space: dict[str, object] = {"__name__": "beside_tfx"}
    exec(compile(block, str(file), "exec", dont_inherit=True), space)
    compiler.Compiler().compile(space["beside_tfx"], str(tmp_path / "beside_tfx.yaml"))
    assert "comp-transform-tft" in (tmp_path / "beside_tfx.yaml").read_text()


def test_every_step_in_the_guide_has_these_parameters() -> None:
    ports = {entry.name: {port.name for port in entry.inputs} for entry in catalog.components()}
    seen = set()
    for block in BLOCKS:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ports:
                seen.add(node.func.id)
                assert {keyword.arg for keyword in node.keywords} <= ports[node.func.id], node.func.id
    assert {"transform_tft", "evaluate_tfma", "validate_statistics_tfdv", "train_keras", "predict_table"} <= seen
