#!/usr/bin/env bash
# Run here, once: puts the packages that a bare GPU machine lacks into .whl/, to be carried there with the repository.
# torch, numpy, numba, matplotlib and the rest of the scientific stack are taken to be there.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p .whl
"${PYTHON:-python3}" -m pip wheel --quiet --no-deps --wheel-dir .whl \
    fvcore==0.1.5.post20221221 torch-pruning==1.6.0 iopath yacs termcolor portalocker beartype pytorch-msssim bjontegaard
ls -l .whl
