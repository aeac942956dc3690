"""A model as other tools load it: Sentence Transformers, ONNX, OpenVINO; checked when written."""
