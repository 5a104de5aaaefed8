# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .chapters import (
    ChapterError as ChapterError,
    chapter_parameters as chapter_parameters,
    find_chapters as find_chapters,
    read_chapter as read_chapter,
)
from .sweeps import as_text as as_text, collect as collect
from .slots import share_out as share_out
from .status import finished_before as finished_before, look_back as look_back
from .table import print_table as print_table
from .runner import Interrupted as Interrupted, plan_runs as plan_runs, run_book as run_book
