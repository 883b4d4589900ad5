"""EVC: a real-time learned image codec (ICLR 2023), the reference client of maskdecay."""
