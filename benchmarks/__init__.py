"""What the engine costs, measured against what it could not be without."""
