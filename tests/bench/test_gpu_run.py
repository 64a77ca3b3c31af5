from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.gpu.pack_data import pack_images, pack_weights
from bench.gpu.run import LIMITS, Job, jobs_of, run_part

ROOT = Path(__file__).resolve().parents[2]
NOT_THERE = (
    "aiobotocore", "boto3", "botocore", "configobj", "dvc", "dvc_s3", "fastapi", "pathspec", "prefect", "sqlalchemy"
)  # fmt: skip
"""Dependencies that a GPU machine lacks and bench/gpu/pack.sh doesn't pack."""


def job(name: str, code: str, seconds: float = 60) -> Job:
    return Job(name, (sys.executable, "-c", code), seconds)


def test_figures_are_written_after_each_job_whatever_becomes_of_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "speed.json"
    after_first = f"import json, pathlib; print(list(json.loads(pathlib.Path({str(path)!r}).read_text())))"
    jobs = [
        job("good", 'print(\'noise\'); print(\'{"rows": [{"ratio": 2.5}, {"ratio": 3}]}\')'),
        job("bad", "import sys; print('{\"ratio\": 1}'); sys.exit('no such kernel')"),
        job("slow", "import time; print('{\"ratio\": 7}', flush=True); time.sleep(60)", 2),
        job("last", after_first),
    ]
    started = time.monotonic()
    assert not run_part("speed", jobs, tmp_path, rehearse=False)
    assert time.monotonic() - started < 30
    found = json.loads(path.read_text())
    assert [found[one.name]["outcome"] for one in jobs] == ["passed", "failed (1)", "out of time", "passed"]
    assert found["good"]["rows"] == [{"ratio": 2.5}, {"ratio": 3}]
    assert found["bad"]["rows"] == [{"ratio": 1}] and found["slow"]["rows"] == [{"ratio": 7}]
    assert "no such kernel" in (tmp_path / "speed.log").read_text()
    assert "['machine', 'good', 'bad', 'slow']" in (tmp_path / "speed.log").read_text()
    assert "ratio 2.5" in capsys.readouterr().out


def test_jobs_that_passed_are_not_run_again(tmp_path: Path) -> None:
    count = f"import pathlib; p = pathlib.Path({str(tmp_path)!r}, 'ran'); p.write_text(p.read_text() + 'x')"
    (tmp_path / "ran").write_text("")
    jobs = [job("good", count), job("bad", f"{count}; 1 / 0")]
    assert not run_part("speed", jobs, tmp_path, rehearse=False)
    assert not run_part("speed", jobs, tmp_path, rehearse=False)
    assert (tmp_path / "ran").read_text() == "xxx"


def test_a_part_ends_in_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "speed", 2)
    jobs = [job("slow", "import time; time.sleep(60)"), job("never", "print(1)")]
    assert not run_part("speed", jobs, tmp_path, rehearse=False)
    found = json.loads((tmp_path / "speed.json").read_text())
    assert [found[one.name]["outcome"] for one in jobs] == ["out of time", "no time left"]


@pytest.mark.parametrize("rehearse", [False, True])
def test_commands_exist_and_fit(tmp_path: Path, rehearse: bool) -> None:
    """All parts in 15 minutes; `check` and `quality` may use all of theirs."""
    assert sum(LIMITS.values()) <= 15 * 60
    for part, limit in LIMITS.items():
        jobs = jobs_of(part, tmp_path, tmp_path, rehearse=rehearse)
        assert len({one.name for one in jobs}) == len(jobs)
        assert all((ROOT / one.command[1]).is_file() or one.command[1] == "-m" for one in jobs)
        assert all(one.seconds <= limit for one in jobs)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, shared_dir: Path) -> Path:
    """Some images and the weights, as bench/gpu/pack.sh packs them."""
    folder = tmp_path_factory.mktemp("packed")
    source = folder / "source" / "nuclei"
    source.mkdir(parents=True)
    (source / "images").symlink_to(shared_dir / "data" / "nuclei" / "images")
    for name in ("train.json", "val.json"):
        content = json.loads((shared_dir / "data" / "nuclei" / name).read_text())
        content["images"] = content["images"][:32]
        (source / name).write_text(json.dumps(content))
    assert pack_images(source, folder / "data" / "nuclei") == 64
    pack_weights(folder / "efficientnet_lite0.safetensors")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("part", LIMITS)
def test_the_rehearsal_without_the_dependencies_of_the_pipeline(
    packed: Path, tmp_path: Path, part: str
) -> None:
    """In miniature on a CPU, by the command that a GPU machine gets."""
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({NOT_THERE!r}))\n"
    )
    own = {
        "PYTHONPATH": tmp_path / "blocked", "PYTHON": sys.executable, "PACKED": packed, "OUT": tmp_path / "out",
        "TMPDIR": tmp_path,
    }  # fmt: skip
    done = subprocess.run(
        ["bench/gpu/run.sh", part, "--rehearse"],
        cwd=ROOT, env=os.environ | {name: str(value) for name, value in own.items()}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    found = json.loads((tmp_path / "out" / f"{part}.json").read_text())
    assert found.pop("machine")["torch"]
    assert {one["outcome"] for one in found.values()} == {"passed"}
    assert all(one["rows"] for one in found.values())
    if part == "quality":
        assert {"teacher", "control", "student", "full"} <= found["nuclei 10%, seed 0"]["rows"][-1].keys()
