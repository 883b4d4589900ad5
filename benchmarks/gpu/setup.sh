#!/usr/bin/env bash
# Run there, first: installs what wheels.sh has put into .whl/, and this repository, without asking any network.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
"$PYTHON" -m pip install --quiet --no-index --no-deps .whl/*.whl
"$PYTHON" -m pip install --quiet --no-index --no-deps --no-build-isolation --editable .
"$PYTHON" -c 'import torch, maskdecay.codecs.evc; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'
