"""TensorFlow's own files as models: which of their variables are LSTM cells, and of what kind."""
