"""Funduscope screens colour photographs of the retina for glaucoma and diabetic retinopathy.

A screening aid for research use, not a diagnosis.

```python
import funduscope

with funduscope.Screener.open() as screener:
    print(screener("eye.jpg"))
```
"""

from . import private as _private  # noqa: F401 -- before any library
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
from .engine.eyes import Eyes, Listed
from .engine.findings import Decision, Findings, HeatMap, Outline
from .engine.outputs.patients import Patient, Patients
from .engine.pictures.photo import Photo
from .engine.results import ModelName, Rejected, Result, Screening, columns
from .engine.run import Run
from .engine.screener import Screener, ScreenerSettings
from .engine.watch import Watch
from .version import __version__

__all__ = [
    "BackendError",
    "Code",
    "Contract",
    "DataError",
    "Decision",
    "Eyes",
    "Findings",
    "FunduscopeError",
    "HeatMap",
    "Listed",
    "MissingExtra",
    "ModelError",
    "ModelName",
    "Outline",
    "OutputError",
    "Patient",
    "Patients",
    "Photo",
    "PhotoError",
    "Rejected",
    "Result",
    "Run",
    "Screener",
    "ScreenerSettings",
    "Screening",
    "SettingsError",
    "Watch",
    "__version__",
    "columns",
]
