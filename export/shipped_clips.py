"""The clips that are shipped, and the size at which models are compared on them."""

from pathlib import Path

CLIPS = Path(__file__).parent / "clips"
DEFAULT_CLIP = CLIPS / "kodak_blurry.mp4"
DEFAULT_PAIR = (DEFAULT_CLIP, CLIPS / "kodak_sharp.mp4")  # with its truth
SIZE_COMPARED = (184, 320)  # pixels, H and W, where they are free: those of the clip
