"""The folders of the photos and paintings that ship, PHOTOS and STYLES; SOURCES.tsv names each origin."""

from pathlib import Path

PHOTOS = Path(__file__).parent / "photos"
STYLES = Path(__file__).parent / "styles"
