"""Files as bytes: reading, recognising, decoding and writing image files."""
