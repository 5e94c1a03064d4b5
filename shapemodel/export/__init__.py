"""Shapes leave the project here: pictures of a surface (STL, PLY, OBJ, VTP, VTU) and finite-element decks.

Nothing comes back through these formats: STL, PLY and OBJ lose labels or vertex order, decks lose the frame.
"""

from shapemodel.export.deck import Deck, DeckInfo, Units, make_deck, part_name
from shapemodel.export.write import DECKS, FORMATS, write_shape

__all__ = ["DECKS", "FORMATS", "Deck", "DeckInfo", "Units", "make_deck", "part_name", "write_shape"]
