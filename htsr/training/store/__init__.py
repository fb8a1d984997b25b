"""The run directory: captures that survive a kill, the tables that repeat them, and how they are read back."""
