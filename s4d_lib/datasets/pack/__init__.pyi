# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .writer import pack as pack
