"""shapemodel: chest CT studies in, average male and female skeletal thoraxes out."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("shapemodel")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+source"
