"""An instruction dataset from Python's own language reference: questions, and answers that the reference gives."""

from examples.python_docs_qa.pipeline import build_pipeline

__all__ = ["build_pipeline"]
