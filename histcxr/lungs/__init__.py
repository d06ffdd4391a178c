"""Finding the lungs in frontal radiographs that come without a mask."""
