#!/usr/bin/env bash
# The near-lossless codec on a CUDA GPU: the tests that need one, then Kodak's files against one CPU core.
#
#   bash benchmarks/gpu/near_lossless.sh DATA/kodak benchmarks/results/gpu [PICTURES]
#
# Guessed at half a minute per picture, of which the CPU takes most; 8 pictures by default.
set -euo pipefail
data=$(realpath "$1") out=$(realpath -m "$2") pictures=${3:-8}
cd "$(dirname "$0")/../.."
python -m pytest tests/codecs/near_lossless/test_device.py -p no:xdist -k gpu
python benchmarks/near_lossless_device.py "$data" --device cuda --limit "$pictures" --out "$out"
