"""The multi-task network as a system."""

from ..system import System
from .calibrate import calibrate
from .config import Config
from .deploy import CALIBRATED, deploy
from .job import MultiTaskJob

MULTITASK = System(Config, MultiTaskJob, calibrate, CALIBRATED, deploy)
