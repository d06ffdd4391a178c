"""DICOM radiographs: what a file says, its pixels, and the grey levels they mean."""
