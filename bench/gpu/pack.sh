#!/usr/bin/env bash
# Packs what a bare GPU machine lacks into .gpu/ (ignored by git), to be carried there with the checkout:
# wheels for CPython 3.12 on x86-64, nuclei as losslessly packed images, and ImageNet weights as half floats.
#
#   bench/gpu/pack.sh [DATA]      DATA has nuclei/{train,val}.json and nuclei/images (default: ../shared/data)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python=.venv/bin/python
[ -x "$python" ] || python=python3
data=${1:-../shared/data}
limit_mb=55  # 64 travel in all; the checkout needs some

rm -rf .gpu
mkdir -p .gpu/wheels
# That machine has torch, NumPy, pyarrow, OpenCV, Pillow and pytest. Versions are those of this environment.
for name in annotated-types cronsim defusedxml orjson pycocotools pydantic pydantic-core roifile ruamel.yaml \
    typing-inspection; do
    version=$("$python" -c "import importlib.metadata as m; print(m.version('$name'))")
    "$python" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
        --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_24_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --platform any \
        -d .gpu/wheels "$name==$version" 2>/dev/null ||
        { echo "pack.sh: no wheel of $name==$version for CPython 3.12 on x86-64" >&2; exit 1; }
done
"$python" bench/gpu/pack_data.py "$data" .gpu

size_mb=$(du -sm .gpu | cut -f1)
checkout_mb=$(($(git ls-files -z --cached --others --exclude-standard | xargs -0 du -ck --apparent-size | tail -n 1 | cut -f1) / 1024 + 1))
echo ".gpu: $size_mb MB ($(find .gpu/wheels -name '*.whl' | wc -l) wheels); the checkout: $checkout_mb MB"
if [ "$size_mb" -gt "$limit_mb" ]; then
    echo "pack.sh: .gpu is $size_mb MB, expected at most $limit_mb; pack fewer images" >&2
    exit 1
fi
