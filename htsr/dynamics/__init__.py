"""What an optimizer step did."""
