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
    """Why a picture has no result, or what a result lacks. A code never changes its meaning.

    Attributes:
        NOT_FOUND: No such file.
        NOT_A_FILE: A folder, pipe, socket or device.
        UNREADABLE: The operating system refuses to read it.
        EMPTY_FILE: 0 bytes.
        UNKNOWN_FORMAT: Not JPEG, PNG, TIFF, BMP, WebP, JPEG 2000, GIF or DICOM, or not a kind of these that is read.
        NEEDS_EXTRA: An optional part reads this format; the reason has the pip line that installs it.
        DAMAGED: The header is fine, the data is cut or corrupt. BMP, WebP, JPEG 2000, and TIFF (but with Deflate) have
            no checksums: of these a cut or an empty part is told, not every changed byte.
        TOO_LARGE: More pixels or bytes than the limit; told from the header, nothing decoded.
        TOO_SMALL: Too few pixels to see a disc.
        NOT_COLOUR: One channel.
        FLOAT_IMAGE: Floating-point samples: no defined brightness.
        MULTI_PAGE: Several pictures in one file.
        NO_FIELD_OF_VIEW: Nothing bright enough to be a retina.
        NOT_ROUND: The field of view is no circle: the picture was squeezed. A warning where it is little.
        UNLIKELY_COLOURS: Green or blue is brighter than red, as in no retina: the file's colours are not what it says.
        NOT_A_FUNDUS: Anything but a colour photograph of a retina, as the classifier sees it.
        DARK: Too little light reached the retina.
        OVEREXPOSED: Light has burnt out what was to be seen.
        BLURRED: Out of focus, shaken or hazy.
        LOW_RESOLUTION: The retina is too few pixels wide for any decision. A warning where it is for some; these are left open.
        DISC_NOT_FOUND: No optic disc. A warning where another model decides all the same; glaucoma is left open.
        DISC_IMPLAUSIBLE: Warning: what was found is no disc by its size, shape or distance from the fovea; no vCDR is told.
        DISC_OVEREXPOSED: Warning: part of the disc is burnt out; glaucoma is told less surely, take it again with less flash.
        SIDEWAYS: Warning: the picture lies on its side, so no vCDR is told; turn it by a quarter.
        CUP_NOT_FOUND: Warning: a disc without a measurable cup.
        FOVEA_NOT_FOUND: Warning: no fovea in the picture.
        LATERALITY_CONFLICT: Warning: list, file and picture do not agree on which eye it is.
        GLAUCOMA_DISAGREEMENT: Warning: one model calls glaucoma and the other denies it, or their probabilities, each seen
            from its own threshold, are farther apart than the model file's `disagreement`.
        GLAUCOMA_UNCERTAIN: Warning: the classifier's second opinion (`glaucoma_second`) is too near to its threshold; `glaucoma`
            is not concerned.
        DR_UNCERTAIN: Warning: the classifier is too near to its threshold of referable diabetic retinopathy (grade 2 and more).
        ANY_DR_UNCERTAIN: Warning: the same, for any diabetic retinopathy (grade 1 and more), or it is open as referable is.
        END_MISSING: Warning: a JPEG lacks its end marker, and nothing else.
        RANGE_ASSUMED: Warning: samples of 16 bits use 8, 10 or 12 alone, and were read as of that range.
        ONE_EYE: Warning of a patient: there is no picture with a result of each eye.
        MODEL_NONFINITE: The model gave NaN or infinity.
        WORKER_CRASH: Reading it has crashed a process of its own, twice.
        TIMED_OUT: Reading it took longer than it may, twice.
    """

    NOT_FOUND = "NOT_FOUND"
    NOT_A_FILE = "NOT_A_FILE"
    UNREADABLE = "UNREADABLE"
    EMPTY_FILE = "EMPTY_FILE"
    UNKNOWN_FORMAT = "UNKNOWN_FORMAT"
    NEEDS_EXTRA = "NEEDS_EXTRA"
    DAMAGED = "DAMAGED"
    TOO_LARGE = "TOO_LARGE"
    TOO_SMALL = "TOO_SMALL"
    NOT_COLOUR = "NOT_COLOUR"
    FLOAT_IMAGE = "FLOAT_IMAGE"
    MULTI_PAGE = "MULTI_PAGE"
    NO_FIELD_OF_VIEW = "NO_FIELD_OF_VIEW"
    NOT_ROUND = "NOT_ROUND"
    UNLIKELY_COLOURS = "UNLIKELY_COLOURS"
    NOT_A_FUNDUS = "NOT_A_FUNDUS"
    DARK = "DARK"
    OVEREXPOSED = "OVEREXPOSED"
    BLURRED = "BLURRED"
    LOW_RESOLUTION = "LOW_RESOLUTION"
    DISC_NOT_FOUND = "DISC_NOT_FOUND"
    DISC_IMPLAUSIBLE = "DISC_IMPLAUSIBLE"
    DISC_OVEREXPOSED = "DISC_OVEREXPOSED"
    SIDEWAYS = "SIDEWAYS"
    CUP_NOT_FOUND = "CUP_NOT_FOUND"
    FOVEA_NOT_FOUND = "FOVEA_NOT_FOUND"
    LATERALITY_CONFLICT = "LATERALITY_CONFLICT"
    GLAUCOMA_DISAGREEMENT = "GLAUCOMA_DISAGREEMENT"
    GLAUCOMA_UNCERTAIN = "GLAUCOMA_UNCERTAIN"
    DR_UNCERTAIN = "DR_UNCERTAIN"
    ANY_DR_UNCERTAIN = "ANY_DR_UNCERTAIN"
    END_MISSING = "END_MISSING"
    RANGE_ASSUMED = "RANGE_ASSUMED"
    ONE_EYE = "ONE_EYE"
    MODEL_NONFINITE = "MODEL_NONFINITE"
    WORKER_CRASH = "WORKER_CRASH"
    TIMED_OUT = "TIMED_OUT"


class FunduscopeError(Exception):
    """Base of all errors here; the message says what is wrong, then what to do."""


class PhotoError(FunduscopeError):
    """One picture cannot be screened.

    Attributes:
        code: Why, as a row says it.
        reason: The same as a sentence.
        name: How results call the picture.
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

    Args:
        module: Its name.
        extra: The extra of this package that brings it.

    Raises:
        MissingExtra: It is absent; the message has the pip line.
        BackendError: It is there but does not load; the message has the cause.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"This needs {error.name}, which is not installed. Install it with: pip install 'funduscope[{extra}]'"
        ) from error
    except (ImportError, OSError) as error:  # a shared library that it needs
        raise BackendError(f"{module} is installed but does not load: {error}") from error
