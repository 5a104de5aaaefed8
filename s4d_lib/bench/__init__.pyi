# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .timing import Between as Between, Clock as Clock, median_between as median_between, take_turns as take_turns
from .rows import Row as Row, Settings as Settings, all_rows as all_rows, chosen as chosen
from .measuring import measure as measure
from .tables import as_markdown as as_markdown, print_record as print_record
