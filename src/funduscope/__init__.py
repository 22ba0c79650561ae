"""Funduscope screens colour photographs of the retina for glaucoma and diabetic retinopathy.

A screening aid for research use, not a diagnosis.

with funduscope.Screener.open() as screener:
result = screener("eye.jpg")
"""

from .engine.contract import Contract
from .engine.errors import (
    BackendError,
    Code,
    DataError,
    FunduscopeError,
    MissingExtra,
    ModelError,
    OutputError,
    PhotoError,
    SettingsError,
)
from .engine.outputs.patients import Patient, Patients
from .engine.pictures.inputs import Listed
from .engine.pictures.photo import Photo
from .engine.results import Classification, Eyes, HeatMap, ModelName, Opinion, Outline, Rejected, Result, Screening
from .engine.screener import Screener
from .version import __version__

__all__ = [
    "BackendError",
    "Classification",
    "Code",
    "Contract",
    "DataError",
    "Eyes",
    "FunduscopeError",
    "HeatMap",
    "Listed",
    "MissingExtra",
    "ModelError",
    "ModelName",
    "Opinion",
    "Outline",
    "OutputError",
    "Patient",
    "Patients",
    "Photo",
    "PhotoError",
    "Rejected",
    "Result",
    "Screener",
    "Screening",
    "SettingsError",
    "__version__",
]
