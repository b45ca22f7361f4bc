"""Runtime parameters, under distilabel's path."""

from distilabel_dagster.base.runtime_parameters import (
    RuntimeParameter,
    RuntimeParameterInfo,
    RuntimeParametersMixin,
)

__all__ = ["RuntimeParameter", "RuntimeParameterInfo", "RuntimeParametersMixin"]
