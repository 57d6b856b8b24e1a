"""The families, a module a group; a handle is called as its family, without prefix and ``_total``, in capitals."""
