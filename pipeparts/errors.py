"""The error classes of the library side; the same ones as inside the containers."""

from pipeparts.runtime.errors import (
    ContractError,
    DataError,
    InputError,
    PipepartsError,
    ServiceError,
    suggest,
)

__all__ = ["ContractError", "DataError", "InputError", "PipepartsError", "ServiceError", "suggest"]
