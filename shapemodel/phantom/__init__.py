"""The phantom: an analytic thorax with known labels, known correspondence and a known population.

``draw_population`` and ``mean_subject`` give subjects; ``surface`` their bones (the same vertices on everybody);
``material`` and ``locate`` carry any point of one subject to any other; ``distractors``, ``cartilage`` and ``tissue``
are what else a scan shows.
"""

from shapemodel.phantom.cartilage import cartilage
from shapemodel.phantom.distractors import distractors
from shapemodel.phantom.shape import surface
from shapemodel.phantom.subject import Subject, draw_population, mean_subject
from shapemodel.phantom.tissue import tissue
from shapemodel.phantom.truth import MaterialPoints, locate, material

__all__ = [
    "MaterialPoints",
    "Subject",
    "cartilage",
    "distractors",
    "draw_population",
    "locate",
    "material",
    "mean_subject",
    "surface",
    "tissue",
]
