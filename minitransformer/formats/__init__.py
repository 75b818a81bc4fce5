"""What lies on disk: checkpoints in Hugging Face's layout, adapter files, and the folders
of AdapterHub and PEFT.

Begin with `adapter_file.py`; `files.py` reads and writes safetensors for all others.
"""
