"""Pictures of all layers of a model at once."""
