"""What every test shares: one thread, and annotations checked at run time, an int being a float as in PEP 484."""

import signal
import sys
import types

import torch
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

checker = types.ModuleType("maskdecay_test_types")
checker.check = beartype(conf=BeartypeConf(is_pep484_tower=True))
sys.modules[checker.__name__] = checker
install_import_hook(["maskdecay"], "maskdecay_test_types.check")
torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background; tests interrupt what they test
    signal.signal(signal.SIGINT, signal.default_int_handler)
