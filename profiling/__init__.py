"""MAC, parameter and latency reports for any PyTorch network."""
