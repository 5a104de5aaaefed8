# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .timelines import ABOUT as ABOUT, smooth_in_time as smooth_in_time
from .video import predict as predict, predict_one as predict_one
from .pages import write_page as write_page
