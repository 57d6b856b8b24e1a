"""One reading of a store joined with the kernel's figures."""
