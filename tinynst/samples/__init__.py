"""The photos and paintings that ship: PHOTOS and STYLES are their folders; each has its origins in SOURCES.tsv."""

from pathlib import Path

PHOTOS = Path(__file__).parent / "photos"
STYLES = Path(__file__).parent / "styles"
