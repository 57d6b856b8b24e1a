"""An instance at a moment and over the last minute, as data without I/O but for its two readers."""
