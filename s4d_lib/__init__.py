"""recipe → record     The library of the book Static for Dynamic; `head -1 s4d_lib/*.py` is its map.

Nothing is imported here: each file stands on its own, so `import s4d_lib` costs nothing.
"""

__version__ = "0.1.0"
