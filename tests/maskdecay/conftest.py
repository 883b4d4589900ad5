"""Lets tests import what stands beside them (the zoo)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
