"""The classifier as a system."""

from ..system import System
from .calibrate import calibrate
from .config import Config
from .deploy import CALIBRATED, deploy
from .job import ClassifierJob

CLASSIFIER = System(Config, ClassifierJob, calibrate, CALIBRATED, deploy)
