"""The graph of a pipeline: structure, validation, routing, stages, signatures."""
