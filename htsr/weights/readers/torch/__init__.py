"""Files of torch: checkpoints, distributed ones, TorchScript, and programs that torch.export saved."""
