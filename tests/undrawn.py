"""A double of matplotlib's drawing: imported, it saves each figure of this process as a picture of one pixel.

A run's pictures take as long as the rest of a short run. The tests that are about them draw them: see the fixture
`pictures`.
"""

from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

DRAWN = Figure.savefig


def savefig(self, target, *, metadata=None, **_):
    """Save a PNG with the description that the figure was given."""
    told = PngInfo()
    for name, text in (metadata or {}).items():
        told.add_text(name, text)
    Image.new("L", (1, 1)).save(target, "png", pnginfo=told)


Figure.savefig = savefig
