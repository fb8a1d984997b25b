"""What an optimizer step did, and what that says about widths, learning rates and the choice of optimizer."""
