# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .contents import BadCheckpoint as BadCheckpoint, Contents as Contents
from .files import (
    SHIPPED as SHIPPED,
    AnotherModel as AnotherModel,
    read_metadata as read_metadata,
    rebuild as rebuild,
    save_model as save_model,
)
from .hub import HubModel as HubModel
