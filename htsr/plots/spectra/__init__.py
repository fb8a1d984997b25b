"""Pictures of one spectrum: the ESD, its bulk, its tail, and how the tail was chosen."""
