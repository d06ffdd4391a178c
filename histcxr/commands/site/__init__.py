"""Commands for a hospital's own patients."""
