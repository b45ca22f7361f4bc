"""What everything else stands on: signatures, serialization, runtime parameters, columns."""
