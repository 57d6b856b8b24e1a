"""What must not drift."""
