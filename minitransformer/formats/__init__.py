"""What lies on disk: Hugging Face's checkpoints, adapter files, AdapterHub's and PEFT's folders.

Begin with `adapter_file.py`, and with `adapter_record.py` for what such a file says of itself;
`files.py` reads and writes safetensors for all others.
"""
