"""What the child processes do: embed, tell topics and continuity, write."""
