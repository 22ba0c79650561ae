"""The second look at the disc as a system."""

from ..system import System
from .calibrate import calibrate
from .config import Config
from .deploy import CALIBRATED, deploy
from .job import DiscJob

DISC = System(Config, DiscJob, calibrate, CALIBRATED, deploy)
