"""Where values live: slot-owned files, the scoreboard and their reader."""
