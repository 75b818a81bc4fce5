"""What lies on disk: Hugging Face's checkpoints, adapter files, AdapterHub's and PEFT's folders.

Begin with `adapter_file.py`; `files.py` reads and writes safetensors for all others.
"""
