"""What people see in a terminal: tables and the live view."""
