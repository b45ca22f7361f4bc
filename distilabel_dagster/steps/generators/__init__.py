"""Steps that a pipeline starts from."""
