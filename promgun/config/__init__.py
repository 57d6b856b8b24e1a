"""What a server was asked to do, and whether it can be done."""
