"""What every command shares with the terminal: how it ends, where it writes, what it prints."""
