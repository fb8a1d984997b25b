"""The interactive page: what it holds is put together here as JSON, and its scripts draw it."""
