#!/usr/bin/env bash
# Runs one part on a bare GPU machine to which .gpu/ (or $PACKED) was carried (bench/gpu/pack.sh), or all of them, in 14 minutes.
#
#   bench/gpu/run.sh check|speed|quality|all [--rehearse]      --rehearse: in miniature on a CPU
#
# Figures are in $OUT (default: .gpu-results) as JSON, one file a part, written after each job; a table comes last.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python=${PYTHON:-python3}
packed=${PACKED:-.gpu}
site=${TMPDIR:-/tmp}/points2model-site
if compgen -G "$packed/wheels/*.whl" >/dev/null; then
    "$python" -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir \
        --upgrade --target "$site" "$packed"/wheels/*.whl
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
exec "$python" bench/gpu/run.py "$@" --packed "$packed"
