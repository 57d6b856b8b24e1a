"""/proc, temporary folders, atomic files, safe opening."""
