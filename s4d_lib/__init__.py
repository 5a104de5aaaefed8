"""recipe → record     The library of the book Static for Dynamic; `head -1 s4d_lib/*.py` is its map.

Nothing heavy is imported here: each file stands on its own, so `import s4d_lib` costs nothing.
"""

from s4d_lib.timm_import import register_with_timm

__version__ = "0.1.0"

register_with_timm()
