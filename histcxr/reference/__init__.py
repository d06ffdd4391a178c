"""The expensive way: networks that look at the whole image, beside the histograms, on the same patients."""
