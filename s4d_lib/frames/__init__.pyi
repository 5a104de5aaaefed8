# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .backends import installed_backends as installed_backends
from .endings import IMAGE_SUFFIXES as IMAGE_SUFFIXES, VIDEO_SUFFIXES as VIDEO_SUFFIXES
from .reader import FrameReader as FrameReader, UnreadableMedia as UnreadableMedia, open_frames as open_frames
from .streams import Chunk as Chunk, Found as Found, find_media as find_media
from .writer import Mp4Writer as Mp4Writer, write_mp4 as write_mp4
