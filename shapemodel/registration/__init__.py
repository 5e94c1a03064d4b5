"""Registration: a template fitted to one labelled, perhaps cut-off subject, with an honest error."""

from shapemodel.registration.engine import register
from shapemodel.registration.prepare import Prepared, prepare
from shapemodel.registration.settings import PriorSettings, RegistrationSettings

__all__ = ["Prepared", "PriorSettings", "RegistrationSettings", "prepare", "register"]
