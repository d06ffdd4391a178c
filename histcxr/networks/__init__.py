"""What every Keras network here shares: the import of its packages, fitting, searching, ONNX."""
