"""Independent references: the same models in PyTorch, transformers and adapters."""
