"""What each page shows, from the figures that its JSON has."""
