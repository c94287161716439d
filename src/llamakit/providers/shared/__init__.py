"""What several remote providers share: the table of vendors, one HTTP door, wire to events."""
