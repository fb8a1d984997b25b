"""ONNX files: the graph, the values it computes from constants, and which of them are weights."""
