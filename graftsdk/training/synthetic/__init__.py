"""Drawn lift scenes: people with exact masks and attributes, for training and tests, without anybody's photograph.

scene = draw_scene(seed=0, index=7)          # the picture, and each person's mask, occlusion and attributes
write_scenes("scenes", 2000, seed=0)         # a data set in COCO's layout
"""

from graftsdk.training.synthetic.dataset import generator_digest, is_crowd, write_scenes
from graftsdk.training.synthetic.scene import DrawnPerson, DrawnScene, draw_scene

__all__ = ["DrawnPerson", "DrawnScene", "draw_scene", "generator_digest", "is_crowd", "write_scenes"]
