# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .encoders import load_encoder as load_encoder
from .describe import Hints as Hints
from .loading import load_model as load_model
from .cards import AnswerCard as AnswerCard, OpenedModel as OpenedModel, open_model as open_model
from .export import export_model as export_model
