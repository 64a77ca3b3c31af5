"""dvc.yaml rewritten with the import closure of each stage."""

from __future__ import annotations

from pathlib import Path

from flows.source_deps import faults, rewrite
from tests.source_tree import BASE, lay

DVC_YAML = """\
# a comment
stages:
  step:
    desc: has one too many and one too few
    cmd: python -m tasks.step
    deps:
      - workspace/in  # kept
      - data/gone.py
      - ${ingest.images}
    outs:
      - workspace/out
  other:
    cmd: ./run.sh
    deps:
      - data/a.py
    outs:
      - workspace/other
"""


def test_rewrite_mends_what_faults_finds(tmp_path: Path) -> None:
    lay(tmp_path, {**BASE, "tasks/step.py": "from data import a", "dvc.yaml": DVC_YAML})
    source = ["data/__init__.py", "data/a.py", "tasks/__init__.py", "tasks/step.py"]
    assert faults(tmp_path) == {"step": (source, ["data/gone.py"])}
    mended = rewrite(DVC_YAML, tmp_path)
    (tmp_path / "dvc.yaml").write_text(mended)
    assert faults(tmp_path) == {}
    assert rewrite(mended, tmp_path) == mended
    listed = "".join(f"      - {file}\n" for file in source)
    assert mended == DVC_YAML.replace("      - data/gone.py\n", "").replace(
        "    deps:\n", "    deps:\n" + listed, 1
    )
