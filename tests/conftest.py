"""What every test shares: one thread, and shapes checked by jaxtyping and beartype."""

import torch
from jaxtyping import install_import_hook

install_import_hook(["maskdecay"], "beartype.beartype")
torch.set_num_threads(1)
