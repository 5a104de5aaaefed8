# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .diagnosis import diagnose as diagnose
