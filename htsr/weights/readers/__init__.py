"""List the tensors of checkpoint files: one file for each format."""
