"""Every error that Funduscope raises on purpose.

FunduscopeError
├── PhotoError          one picture cannot be screened; carries a `Code`; becomes a row, never stops a run
├── ModelError          a model file is damaged, foreign, or not what was asked for
├── SettingsError       a setting, a configuration file or an argument is wrong
│   └── DataError       labels or pictures of a data set contradict one another
├── BackendError        the inference backend or device that was asked for is not here
│   └── MissingExtra    an optional part is not installed; the message has the pip line
└── OutputError         results cannot be written
"""

from __future__ import annotations

import importlib
from enum import StrEnum
from types import ModuleType

from .eyes import Eye, Listed


class Code(StrEnum):
    """Why a picture has no result, or what a result lacks. The first word of a row's `reason` never changes meaning."""

    NOT_FOUND = "NOT_FOUND"  # no such file
    NOT_A_FILE = "NOT_A_FILE"  # a folder, pipe, socket or device
    UNREADABLE = "UNREADABLE"  # the operating system refuses to read it
    EMPTY_FILE = "EMPTY_FILE"  # 0 bytes
    UNKNOWN_FORMAT = "UNKNOWN_FORMAT"  # not JPEG, PNG, TIFF, BMP or DICOM, or not a kind of these that is read
    NEEDS_EXTRA = "NEEDS_EXTRA"  # an optional part reads this format; the reason has the pip line that installs it
    DAMAGED = "DAMAGED"  # the header is fine, the data is cut or corrupt
    TOO_LARGE = "TOO_LARGE"  # more pixels or bytes than the limit; told from the header, nothing decoded
    TOO_SMALL = "TOO_SMALL"  # too few pixels to see a disc
    NOT_COLOUR = "NOT_COLOUR"  # one channel
    FLOAT_IMAGE = "FLOAT_IMAGE"  # floating-point samples: no defined brightness
    MULTI_PAGE = "MULTI_PAGE"  # several pictures in one file
    NO_FIELD_OF_VIEW = "NO_FIELD_OF_VIEW"  # nothing bright enough to be a retina
    DISC_NOT_FOUND = "DISC_NOT_FOUND"  # no optic disc: probably not a (gradable) fundus photograph
    CUP_NOT_FOUND = "CUP_NOT_FOUND"  # warning: a disc without a measurable cup
    FOVEA_NOT_FOUND = "FOVEA_NOT_FOUND"  # warning: no fovea in the picture
    LATERALITY_CONFLICT = "LATERALITY_CONFLICT"  # warning: list, file and picture do not agree on which eye it is
    GLAUCOMA_DISAGREEMENT = "GLAUCOMA_DISAGREEMENT"  # warning: the two models are far apart on glaucoma
    GLAUCOMA_UNCERTAIN = "GLAUCOMA_UNCERTAIN"  # warning: the classifier's probability is too near to its threshold
    DR_UNCERTAIN = "DR_UNCERTAIN"  # warning: the same, for referable diabetic retinopathy
    ANY_DR_UNCERTAIN = "ANY_DR_UNCERTAIN"  # warning: the same, for diabetic retinopathy of any grade
    CLASSIFIER_UNGRADABLE = "CLASSIFIER_UNGRADABLE"  # warning: the picture is too dark or unreadable for the classifier
    ONE_EYE = "ONE_EYE"  # warning of a patient: there is no picture with a result of each eye
    MODEL_NONFINITE = "MODEL_NONFINITE"  # the model gave NaN or infinity


class FunduscopeError(Exception):
    """Base of all errors here; the message says what is wrong, then what to do."""


class PhotoError(FunduscopeError):
    """One picture cannot be screened.

    Attributes:
        code: Why, as a row says it.
        reason: The same as a sentence.
        name: See `Photo`, as what follows.
        sha256: Of the file's bytes, where they could be read.
        patient: As a DICOM file says.
        eye: As a DICOM file says.
        listed: What its list says of it.
    """

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.name = ""
        self.sha256: str | None = None
        self.patient: str | None = None
        self.eye: Eye | None = None
        self.listed: Listed | None = None

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"


class ModelError(FunduscopeError):
    """A model file is damaged, foreign, or not what was asked for."""


class SettingsError(FunduscopeError):
    """A setting, a configuration file or an argument is wrong."""


class DataError(SettingsError):
    """Labels or pictures of a data set contradict one another."""


class BackendError(FunduscopeError):
    """The inference backend or device that was asked for is not here."""


class MissingExtra(BackendError):
    """An optional part is not installed."""


class OutputError(FunduscopeError):
    """Results cannot be written."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Raises: MissingExtra with the pip line where it is absent; BackendError with the cause where it is there but does not load.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"This needs {error.name}, which is not installed. Install it with: pip install 'funduscope[{extra}]'"
        ) from error
    except (ImportError, OSError) as error:  # a shared library that it needs
        raise BackendError(f"{module} is installed but does not load: {error}") from error
