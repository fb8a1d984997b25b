"""Directories of PEFT adapters: the change that LoRA makes, as peft applies it."""
