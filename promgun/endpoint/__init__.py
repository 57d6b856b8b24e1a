"""The metrics process: an HTTP endpoint in an interpreter of its own."""
